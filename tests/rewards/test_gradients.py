"""Every built-in reward that promises a gradient has one, through the path that reward back-propagation uses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from diffalign.rewards import Reward, Scorer, entries, get
from diffalign.rewards.registry import declaration
from tests.rewards.test_align_harmonic import folder as align  # noqa: F401  # fixtures
from tests.rewards.vlm.conftest import qwen  # noqa: F401
from tests.rewards.vlm.test_hpsv3 import parts as hpsv3  # noqa: F401

PROMPTS = ["a red cat", "a red cat", "a blue dog", "a blue dog"]
PUBLISHED = ["aesthetic", "aesthetic_v1", "clip", "hpsv2", "hpsv2.1", "imagereward", "pickscore"]
LOCAL_VLM = ["mllm_logit", "rewarddance", "rewarddance_group", "vqascore"]


def pictures() -> Tensor:
    """`(4, 3, 40, 40)` smooth images, away from 0 and 1."""
    noise = torch.rand(4, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    return 0.3 + 0.4 * torch.nn.functional.interpolate(noise, (40, 40), mode="bilinear")


@pytest.fixture
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Reward]:
    """Makes a registered reward on a tiny model."""

    def made(name: str) -> Reward:
        arguments: dict[str, Any] = {}
        if name in PUBLISHED:
            arguments = request.getfixturevalue("published")[name]
        elif name in LOCAL_VLM:
            arguments = {"model": str(request.getfixturevalue("qwen"))}
        elif name == "hpsv3":
            arguments = request.getfixturevalue("hpsv3")
        elif name == "align_harmonic":
            arguments = {"model": request.getfixturevalue("align")}
        elif name in ("vendi", "frechet"):
            arguments = {"features": "pixels"}
            if name == "frechet":
                Image.new("RGB", (40, 40), (90, 120, 140)).save(tmp_path / "reference.png")
                arguments["reference"] = str(tmp_path)
        return get(name, **arguments)

    return made


@pytest.mark.parametrize(
    "name", sorted(e.name for e in entries() if e.distribution == "diffalign" and declaration(e).differentiable)
)
def test_the_gradient_reaches_every_image(make: Callable[[str], Reward], name: str) -> None:
    images = pictures()
    records = [{"reference_image": images[0], "reference_images": [images[0]]}] * 4
    leaf = images.clone().requires_grad_()
    scorer = Scorer({name: make(name)})
    score = scorer.submit([name], leaf, PROMPTS, records, grad=True).result()[name]
    (gradient,) = torch.autograd.grad(score.sum() + score.square().sum(), leaf)  # win rates sum to a constant
    assert gradient.isfinite().all()
    assert (gradient.flatten(1).abs().sum(1) > 0).all()
    without = scorer.submit([name], images, PROMPTS, records).result()[name]
    assert torch.allclose(without, score.detach(), atol=1e-5)


def test_which_rewards_promise_one() -> None:
    promised = {e.name for e in entries() if e.distribution == "diffalign" and declaration(e).differentiable}
    assert promised >= {*PUBLISHED, *LOCAL_VLM, "hpsv3", "align_harmonic", "vendi", "frechet"}
    assert not promised & {"jpeg", "shapes", "shapes_graded", "ocr", "remote", "remote_vlm", "unifiedreward"}
