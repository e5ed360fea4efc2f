"""How often a CLIP model prefers the caption of a scene to a wrong one.

``python scripts/make_shapes/clip_score.py [FOLDER] [--repeats 8]`` prints the shares on
held-out scenes, by kind of wrong caption.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from diffalign.evaluation import geneval
from diffalign.rewards.clip_models import load_clip
from diffalign.shapes import detect, prompts, render_batch, sample_scene
from diffalign.shapes.swaps import KINDS

TRIES = 12


def wrong_captions(
    line: geneval.Line, lines: list[geneval.Line], found: list[geneval.Detection], rng: random.Random
) -> dict[str, list[str]]:
    """Captions by kind that a scene refutes: every swap of one word, and other lines drawn at random."""
    out = {kind: [swap["prompt"] for swap in make(line)] for kind, make in KINDS.items()}
    others = [other["prompt"] for other in rng.choices(lines, k=TRIES) if not geneval.correct(found, other)]
    return {**out, "random": others}


@torch.no_grad()
def heldout_scores(folder: str | Path, repeats: int, seed: int = 11) -> dict[str, Tensor]:
    """Per kind of wrong caption, over held-out scenes: share below the true caption, its score, theirs; (N, 3)."""
    model, lines = load_clip(folder), prompts("heldout") * repeats
    generator, rng = torch.Generator().manual_seed(seed), random.Random(seed)
    images = render_batch([sample_scene(line, generator) for line in lines])
    wrong = [wrong_captions(line, lines, f, rng) for line, f in zip(lines, detect(images), strict=True)]
    texts = sorted({line["prompt"] for line in lines} | {t for w in wrong for part in w.values() for t in part})
    place = {t: i for i, t in enumerate(texts)}
    seen = F.normalize(torch.cat([model.image_features(part) for part in images.split(96)]), dim=-1)
    cosines = seen @ F.normalize(model.text_features(texts), dim=-1).T
    rows: dict[str, list[Tensor]] = {kind: [] for kind in (*KINDS, "random")}
    for row, line, by_kind in zip(cosines, lines, wrong, strict=True):
        true = row[place[line["prompt"]]]
        for kind, part in by_kind.items():
            if part:
                scores = row[[place[t] for t in part]]
                rows[kind].append(torch.stack([(scores < true).float().mean(), true, scores.mean()]))
    return {kind: torch.stack(values) for kind, values in rows.items()}


def heldout_preferences(folder: str | Path, repeats: int = 2) -> dict[str, float]:
    """Share of wrong captions that score below the true one on held-out scenes, by kind; a mean of scenes' shares."""
    return {kind: round(rows[:, 0].mean().item(), 4) for kind, rows in heldout_scores(folder, repeats).items()}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", default="shapes-clip", help="shipped name, or a folder")
    parser.add_argument("--repeats", type=int, default=8, help="scenes per held-out line")
    parser.add_argument("--seed", type=int, default=12, help="of the scenes; snapshots are scored on those of 11")
    args = parser.parse_args()
    print(
        "| wrong caption | true one preferred | score of the true one | of the wrong one | scenes |\n"
        + "|---" * 5
        + "|"
    )
    for kind, rows in heldout_scores(args.folder, args.repeats, args.seed).items():
        share, true, wrong = rows.mean(0).tolist()
        print(f"| {kind} | {share:.3f} | {true:.2f} | {wrong:.2f} | {len(rows)} |")


if __name__ == "__main__":
    main()
