from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

import diffalign.rewards as rewards
from diffalign.rewards.jpeg import JpegReward


def noise(count: int = 1, size: int = 64) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_the_size_is_that_of_the_file_on_disk(tmp_path: Path) -> None:
    stripes = torch.linspace(0, 40, 64).sin().square()[None, None, :, None] * noise()
    pixels = (stripes[..., :48, :] * 255).round() / 255
    path = tmp_path / "image.jpg"
    Image.fromarray((pixels[0].permute(1, 2, 0) * 255).round().byte().numpy()).save(path, quality=95)
    score = JpegReward()(pixels, ["p"], [{}])
    assert -1000 * score.item() == pytest.approx(path.stat().st_size)


def test_the_two_directions_are_opposite() -> None:
    images = noise(3)
    down = rewards.get("jpeg")(images, ["p"] * 3, [{}] * 3)
    up = rewards.get("jpeg_incompressibility")(images, ["p"] * 3, [{}] * 3)
    assert torch.equal(down, -up) and (up > 0).all()


def test_smoothing_compresses() -> None:
    images = noise()
    smooth = torch.nn.functional.avg_pool2d(images, 9, 1, 4, count_include_pad=False)
    both = JpegReward()(torch.cat([images, smooth, torch.full_like(images, 0.3)]), ["p"] * 3, [{}] * 3)
    assert both[0] < both[1] < both[2]


def test_quality_changes_size_and_name() -> None:
    low = rewards.get("jpeg", quality=30)
    assert low(noise(), ["p"], [{}]) > JpegReward()(noise(), ["p"], [{}])
    assert low.name == "jpeg_compressibility_q30" and JpegReward().name == "jpeg_compressibility"


def test_values_are_rounded_not_cut() -> None:
    images = noise(4)
    rounded = (images * 255).round() / 255
    assert torch.equal(JpegReward()(images, ["p"] * 4, [{}] * 4), JpegReward()(rounded, ["p"] * 4, [{}] * 4))


def test_a_gradient_is_not_tracked_and_does_not_stop_scoring() -> None:
    images = noise().requires_grad_()
    assert not JpegReward()(images, ["p"], [{}]).requires_grad


@pytest.mark.parametrize("options", [{"kind": "size"}, {"quality": 0}, {"quality": 101}])
def test_bad_options_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="valid: compressibility, incompressibility|1 to 100"):
        rewards.get("jpeg", **options)
