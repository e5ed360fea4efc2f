"""A pool of training scenes: balanced over the six tasks, rendered once, with their captions."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from diffalign.evaluation.geneval_prompts import TAGS
from diffalign.shapes import prompts, render_batch, sample_scene
from diffalign.shapes.vocabulary import SIZE

TASK_WEIGHTS = {"single_object": 1, "two_object": 2, "counting": 3, "colors": 2, "position": 3, "color_attr": 3}


def scene_pool(count: int, seed: int) -> tuple[Tensor, list[str]]:
    """``count`` training images as bytes, (N, 3, 32, 32) uint8, and their captions.

    The harder tasks get more of the pool; within a task every training prompt is as likely as another.
    """
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    by_tag = {tag: [line for line in prompts("train") if line["tag"] == tag] for tag in TAGS}
    tags = rng.choices(list(TASK_WEIGHTS), list(TASK_WEIGHTS.values()), k=count)
    lines = [rng.choice(by_tag[tag]) for tag in tags]
    images = torch.empty(count, 3, SIZE, SIZE, dtype=torch.uint8)
    for start in range(0, count, 1000):
        scenes = [sample_scene(line, generator) for line in lines[start : start + 1000]]
        images[start : start + 1000] = (render_batch(scenes) * 255).round().byte()
    return images, [line["prompt"] for line in lines]
