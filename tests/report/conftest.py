"""A run folder as a finished run leaves it, written by hand: six tasks, eight recorded steps, two rewards."""

from __future__ import annotations

import json
import math
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from diffalign.report.compare import compare
from diffalign.report.grids import image_grid

TASKS = {"single_object": 0.78, "two_object": 0.4, "counting": 0.3, "colors": 0.72, "position": 0.26, "color_attr": 0.3}
GAIN = {
    "single_object": 0.04,
    "two_object": 0.14,
    "counting": 0.1,
    "colors": 0.08,
    "position": 0.02,
    "color_attr": 0.16,
}
STEPS, INDICES, IMAGES = 150, 7, 288
CONFIG = """pretrained_model_name_or_path: shapes-flow
run_name: flow-grpo-shapes
lora_r: 32
lora_alpha: 64.0
num_inference_steps: 8
guidance_scale: 1.0
sde_type: flow_sde
noise_level: 0.7
num_generations: 12
prompts_per_rollout: 24
epsilon: 0.0001
reward_funcs:
- shapes_soft
eval_rewards:
- compressibility
learning_rate: 0.0003
max_train_steps: 150
seed: 0
eval_guidance_scales: [1.0, 2.0, 3.0, 5.0]
"""


def step_row(step: int, rng: random.Random) -> dict[str, Any]:
    """One line of metrics.jsonl."""
    progress = 1 - math.exp(-step / 60)
    row: dict[str, Any] = {
        "event": "step",
        "step": step,
        "loss": rng.gauss(0, 4e-6),
        "kl": 2e-4 * progress + abs(rng.gauss(0, 6e-6)),
        "grad_norm": 0.02 * math.exp(rng.gauss(0, 0.25)) + (0.3 if step == 71 else 0),
        "lr": 3e-4 * min(1, step / 10),
        "reward/shapes_soft/mean": 0.52 + 0.14 * progress + rng.gauss(0, 0.02),
        "reward/shapes_soft/std": 0.31 - 0.03 * progress + rng.gauss(0, 0.006),
        "reward/shapes_soft/nan": 0,
        "advantage/abs_mean": 0.79 + rng.gauss(0, 0.01),
        "group/zero_std": max(0.0, round((0.09 + 0.1 * progress + rng.gauss(0, 0.04)) * 24) / 24),
        "images": IMAGES,
        "forward/rollout": IMAGES * 8,
        "forward/train": IMAGES * INDICES,
        "backward/train": IMAGES * INDICES,
        "forward/reference": IMAGES * INDICES,
        "seconds/rollout": 0.62,
        "seconds/reward": 0.11,
        "seconds/train": 1.31,
    }
    for index in range(INDICES):
        spread = 5e-5 * (1 + 0.35 * index) * (0.5 + progress) * math.exp(rng.gauss(0, 0.08))
        row[f"ratio/mean/{index}"] = 1 - spread * 0.08 + rng.gauss(0, 2e-6)
        row[f"ratio/std/{index}"] = spread
        row[f"dlogp/{index}"] = spread * 0.8
        row[f"clip/high/{index}"] = max(0.0, 0.05 + 0.05 * index * progress + rng.gauss(0, 0.01))
        row[f"clip/low/{index}"] = max(0.0, 0.06 + 0.06 * index * progress + rng.gauss(0, 0.01))
    for name in ("ratio/mean", "ratio/std", "clip/high", "clip/low"):
        row[name] = sum(row[f"{name}/{index}"] for index in range(INDICES)) / INDICES
    return row


def evaluation_row(step: int, rng: random.Random) -> dict[str, Any]:
    """A held-out measurement while training."""
    progress = 1 - math.exp(-step / 60)
    tasks = {f"task/{task}": TASKS[task] + GAIN[task] * progress + rng.gauss(0, 0.01) for task in TASKS}
    return {
        "event": "evaluation",
        "step": step,
        "guidance": 2.0,
        "overall": sum(tasks.values()) / len(tasks),
        "reward/shapes_soft/mean": 0.55 + 0.1 * progress + rng.gauss(0, 0.004),
        "reward/compressibility/mean": -1.6 - 0.02 * progress + rng.gauss(0, 0.004),
        "forward/evaluation": 1920 * 16,
        "seconds/evaluation": 12.4,
        **tasks,
    }


def evaluation(tag: str) -> dict[str, Any]:
    """Content of evaluation/before.json or after.json: 40 prompts per task, 4 images each."""
    after, rng = tag == "after", random.Random(0)  # one stream for both: same noise, so that pairs are close
    prompts = []
    for task, base in TASKS.items():
        for number in range(40):
            skill = min(0.98, max(0.02, base + GAIN[task] * after + 0.3 * math.sin(number * 2.4 + len(task))))
            hits = sum(rng.random() < skill for _ in range(4))
            text = (
                f"a photo of a <b>red</b> ring & {number} discs, {task}" if number == 0 else f"{task} prompt {number}"
            )
            rewards = {"shapes_soft": 0.3 + 0.6 * hits / 4, "compressibility": -1.6 - 0.02 * after + rng.gauss(0, 0.05)}
            prompts.append({"prompt": text, "task": task, "score": hits / 4, "rewards": rewards})
    overall = sum(line["score"] for line in prompts) / len(prompts)
    losses = (
        {"1.0": 0.02, "2.0": 0.0, "3.0": 0.02, "5.0": 0.05}
        if after
        else {"1.0": 0.1, "2.0": 0.0, "3.0": 0.02, "5.0": 0.05}
    )
    return {
        "suite": "shapes",
        "step": STEPS if after else 0,
        "num_inference_steps": 8,
        "images_per_prompt": 4,
        "best_guidance": 2.0,
        "guidance": {scale: {"overall": overall - loss, "tasks": {}} for scale, loss in losses.items()},
        "prompts": prompts,
        "seeds": list(range(4)),
    }


def scenes(count: int, rng: random.Random, noise: float) -> torch.Tensor:
    """`(count, 3, 32, 32)` discs on a plain ground."""
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    images = torch.full((count, 3, 32, 32), 0.93)
    for i in range(count):
        disc = ((x - rng.uniform(9, 23)) ** 2 + (y - rng.uniform(9, 23)) ** 2 < rng.uniform(5, 8) ** 2).float()
        colour = torch.tensor([rng.choice((0.1, 0.85)) for _ in range(3)]).view(3, 1, 1)
        images[i] = (
            images[i] * (1 - disc) + colour * disc + noise * torch.randn(3, 32, 32, generator=torch.manual_seed(i))
        )
    return images


def write_run(folder: Path) -> Path:
    """Write a finished run into `folder`."""
    rng = random.Random(0)
    for part in ("evaluation", "images"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(CONFIG)
    rows = [evaluation_row(0, rng)]
    for step in range(1, STEPS + 1):
        rows += [step_row(step, rng)] + ([evaluation_row(step, rng)] if step % 25 == 0 else [])
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    both = {tag: evaluation(tag) for tag in ("before", "after")}
    for tag, content in {**both, "comparison": compare(both["before"], both["after"])}.items():
        (folder / f"evaluation/{tag}.json").write_text(json.dumps(content))
    texts = [f"a photo of {thing}" for thing in ("a red ring", "two blue discs", "a <i>green</i> star left of a cross")]
    samples = {"columns": 4, "prompts": [t for t in texts for _ in range(4)], "seeds": list(range(4)) * 3}
    (folder / "images/samples.json").write_text(json.dumps(samples))
    for tag, noise in (("before", 0.15), ("after", 0.02)):
        image_grid(scenes(12, random.Random(1), noise), 4).save(folder / f"images/{tag}.png")
    return folder


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run to copy from; no test changes it."""
    return write_run(tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture
def run_dir(finished_run: Path, tmp_path: Path) -> Path:
    """Folder of a finished run, the test's own copy."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))
