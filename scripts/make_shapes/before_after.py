"""The picture of the README, from the run of its example.

``python scripts/make_shapes/before_after.py runs/red docs/images/before_after.png --seed 100``

Draws the first held-out prompts of each task with the base and with the LoRA of a run, same seeds, and frames in green
the images that the detector accepts.
"""

from __future__ import annotations

import argparse
import textwrap
from itertools import islice
from pathlib import Path

import torch
import yaml
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from diffalign.evaluation import geneval
from diffalign.evaluation.geneval_prompts import TAGS, Line
from diffalign.models import load_lora, load_policy
from diffalign.sampling import make_plan, ode, rollout
from diffalign.shapes import detect, prompts

GREEN, GREY, PER_TASK = "#1e8a5b", "#c9ccd1", 2
CELL, LEFT, BELOW = 92, 48, 50
"""Pixels: side of a cell, margin for the names of the rows, margin for the prompts."""


def lines() -> list[Line]:
    """The first distinct held-out prompts of each task."""
    found: dict[str, dict[str, Line]] = {tag: {} for tag in TAGS}
    for line in prompts("heldout"):
        found[line["tag"]].setdefault(line["prompt"], line)
    return [line for tag in TAGS for line in islice(found[tag].values(), PER_TASK)]


@torch.no_grad()
def images(model: str, lora: Path | None, steps: int, wanted: list[Line], seed: int) -> Tensor:
    """(B, 3, 32, 32), without guidance."""
    policy = load_policy(model)
    if lora is not None:
        load_lora(policy, lora, trainable=False)
    plan = make_plan(ode(policy.schedule(steps)), record=[])
    seeds = [seed + i for i in range(len(wanted))]
    return rollout(policy, plan, [line["prompt"] for line in wanted], seeds).images.clamp(0, 1)


def draw(rows: dict[str, Tensor], wanted: list[Line], path: Path) -> None:
    """One row per model, one column per prompt."""
    captions = [textwrap.fill(line["prompt"].removeprefix("a photo of "), 15) for line in wanted]
    sheet = Image.new("RGB", (LEFT + CELL * len(wanted), CELL * len(rows) + BELOW), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for row, (name, drawn) in enumerate(rows.items()):
        accepted = [geneval.correct(found, line) for found, line in zip(detect(drawn), wanted, strict=True)]
        print(f"{name}: {sum(accepted)} of {len(accepted)} accepted")
        pen.text((4, CELL * row + CELL // 2), name, "black", font, anchor="lm")
        for column, (image, verdict) in enumerate(zip(drawn, accepted, strict=True)):
            left, top = LEFT + CELL * column, CELL * row
            edge = 3 if verdict else 1
            pen.rectangle((left + 1, top + 1, left + CELL - 3, top + CELL - 3), GREEN if verdict else GREY)
            pixels = Image.fromarray((image.permute(1, 2, 0) * 255).round().byte().numpy())
            inner = CELL - 3 - 2 * edge
            sheet.paste(pixels.resize((inner, inner), Image.Resampling.NEAREST), (left + 1 + edge, top + 1 + edge))
    for column, caption in enumerate(captions):
        pen.text((LEFT + CELL * column + 3, CELL * len(rows) + 2), caption, "black", ImageFont.load_default(9))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, optimize=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder with a LoRA")
    parser.add_argument("image", type=Path, help="PNG to write")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    config = yaml.safe_load((args.run / "config.yaml").read_text(encoding="utf-8"))
    wanted, model = lines(), config["pretrained_model_name_or_path"]
    steps = config["eval_num_inference_steps"] or config["num_inference_steps"]
    loras = {"before": None, "after": args.run}
    draw({name: images(model, lora, steps, wanted, args.seed) for name, lora in loras.items()}, wanted, args.image)


if __name__ == "__main__":
    main()
