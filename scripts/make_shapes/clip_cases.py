"""Where shapes-clip and the detector part: ``python scripts/make_shapes/clip_cases.py [--clip NAME] [--plot PNG]``.

Prints how well the score tells pictures of shapes-flow-guided that the detector accepts from those it refuses, and
draws the pictures on which the two differ most, scenes outside the detector's rules, and noise that climbed the score's
gradient.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import flow
import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from diffalign import rewards
from diffalign.evaluation import geneval
from diffalign.evaluation.geneval_prompts import TAGS, Line, color_attr, colors
from diffalign.shapes import COLOURS, Item, Scene, checkpoint, detect, prompts, render

Case = tuple[Tensor, str, float, bool]
"""Image (3, 32, 32), words, score, the detector's verdict."""
COLUMNS = 6


def judge(clip: rewards.Reward, images: Tensor, lines: list[Line]) -> list[Case]:
    """Both opinions of each image."""
    texts = [line["prompt"] for line in lines]
    with torch.no_grad():
        scores = clip(images, texts, [{}] * len(lines)).tolist()
    verdicts = [geneval.correct(found, line) for found, line in zip(detect(images), lines, strict=True)]
    return [
        (i, t.removeprefix("a photo of "), s, v) for i, t, s, v in zip(images, texts, scores, verdicts, strict=True)
    ]


def drawn_by_the_base(clip: rewards.Reward, repeats: int) -> list[Case]:
    """Pictures of shapes-flow-guided on held-out lines, guidance 3."""
    pipe, lines = DiffusionPipeline.from_pretrained(checkpoint("shapes-flow-guided")), prompts("heldout") * repeats
    noise = torch.randn(len(lines), 8, 8, 8, generator=torch.Generator().manual_seed(5))
    texts = [line["prompt"] for line in lines]
    images = [flow.generate(pipe, texts[i : i + 96], 3.0, noise[i : i + 96]) for i in range(0, len(lines), 96)]
    return judge(clip, torch.cat(images).clamp(0, 1), lines)


def agreement(cases: list[Case]) -> str:
    """Markdown: how often an accepted picture scores above a refused one of the same task, and both means."""
    tags = [line["tag"] for line in prompts("heldout")]
    rows = ["| task | accepted | score, accepted | score, refused | accepted above refused |", "|---" * 5 + "|"]
    for tag in TAGS:
        own = [case for i, case in enumerate(cases) if tags[i % len(tags)] == tag]
        yes, no = (torch.tensor([c[2] for c in own if c[3] is verdict]) for verdict in (True, False))
        above = (yes[:, None] > no).float().mean().item()
        rows.append(f"| {tag} | {len(yes)} of {len(own)} | {yes.mean():.2f} | {no.mean():.2f} | {above:.2f} |")
    return "\n".join(rows)


def outside_the_rules(clip: rewards.Reward) -> list[Case]:
    """Scenes that a person would take for the prompt, or not, against the detector."""
    red, blue = COLOURS["red"], COLOURS["blue"]
    ring = Item("ring", "blue", blue, 9.0, 16.0, 5.5)
    heart = Item("heart", "red", red, 23.0, 16.0, 5.5)
    faded = replace(heart, rgb=(0.7, 0.3, 0.3), x=16.0)
    pair = color_attr("ring", "blue", "heart", "red")
    cases: list[tuple[Scene, Line]] = [
        (Scene((ring, heart)), pair),
        (
            Scene(
                (ring, heart, replace(heart, label="square", color="green", rgb=COLOURS["green"], y=5.5, radius=4.5))
            ),
            pair,
        ),
        (Scene((replace(heart, x=16.0, radius=3.2),)), colors("heart", "red")),
        (Scene((faded,)), colors("heart", "red")),
        (Scene((replace(heart, x=30.0),)), colors("heart", "red")),
        (Scene((replace(heart, x=16.0),), background=(0.9, 0.85, 0.6)), colors("heart", "red")),
    ]
    return judge(clip, torch.stack([render(scene) for scene, _ in cases]), [line for _, line in cases])


def extremes(cases: list[Case], verdict: bool) -> list[Case]:
    """The first case of each of the first few prompts, in the order given, of those with this verdict."""
    by_prompt: dict[str, Case] = {}
    for case in cases:
        if case[3] is verdict:
            by_prompt.setdefault(case[1], case)
    return list(by_prompt.values())[:COLUMNS]


def climbed(clip: rewards.Reward, steps: int = 40) -> list[Case]:
    """Noise that followed the sign of the score's gradient."""
    lines = prompts("heldout")[:: len(prompts("heldout")) // COLUMNS][:COLUMNS]
    texts, generator = [line["prompt"] for line in lines], torch.Generator().manual_seed(0)
    pixels = (0.5 + 0.1 * torch.randn(len(lines), 3, 32, 32, generator=generator)).clamp(0, 1)
    for _ in range(steps):
        pixels.requires_grad_()
        (gradient,) = torch.autograd.grad(clip(pixels, texts, [{}] * len(lines)).sum(), pixels)
        pixels = (pixels.detach() + 0.02 * gradient.sign()).clamp(0, 1)
    return judge(clip, pixels, lines)


def draw(rows: dict[str, list[Case]], path: str) -> None:
    """One row of pictures per group of cases."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, grid = pyplot.subplots(len(rows), COLUMNS, figsize=(11, 2.3 * len(rows)), constrained_layout=True)
    for axes, (name, cases) in zip(grid, rows.items(), strict=True):
        for axis, (image, words, score, verdict) in zip(axes, cases, strict=True):
            axis.imshow(image.permute(1, 2, 0))
            axis.set(xticks=[], yticks=[])
            axis.set_title(f"{words}\nclip {score:.2f}, detector {'yes' if verdict else 'no'}", fontsize=7)
        axes[0].set_ylabel(name, fontsize=8)
    figure.savefig(path, dpi=80)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clip", default="shapes-clip", help="shipped name, or a folder")
    parser.add_argument("--repeats", type=int, default=4, help="pictures of shapes-flow-guided per held-out line")
    parser.add_argument("--plot", help="PNG to write")
    args = parser.parse_args()
    clip = rewards.get("clip", model=args.clip)
    made = drawn_by_the_base(clip, args.repeats)
    print(agreement(made))
    by_score = sorted(made, key=lambda case: case[2])
    rows = {
        "accepted, low score": extremes(by_score, True),
        "refused, high score": extremes(by_score[::-1], False),
        "outside the rules": outside_the_rules(clip),
        "climbed noise": climbed(clip),
    }
    if args.plot:
        draw(rows, args.plot)


if __name__ == "__main__":
    main()
