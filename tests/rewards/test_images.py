from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from diffalign.rewards import images as pre

# height, width -> size after PIL's resize as (width, height); upper left corner of the crop by hand from torchvision
# (half a pixel goes to the even side) and from transformers (down)
SIZES = [
    ((512, 512), (224, 224), (0, 0), (0, 0)),
    ((300, 451), (336, 224), (56, 0), (56, 0)),
    ((451, 300), (224, 336), (0, 56), (0, 56)),
    ((97, 64), (224, 339), (0, 58), (0, 57)),
    ((64, 97), (339, 224), (58, 0), (57, 0)),
    ((20, 33), (369, 224), (72, 0), (72, 0)),
]
LEVEL = 1.01 / 255
"""One level of 8 bits: where a sum lies half-way between two, fixed and floating point may round to either."""


def photo(height: int, width: int) -> Tensor:
    """An 8-bit picture `(1, 3, H, W)` with smooth regions, texture and hard edges, values kept off 0 and 1."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    waves = torch.stack([torch.sin(9 * x + 3 * y), torch.cos(17 * y * x), torch.sin(5 * (x - y))])
    noise = torch.rand(3, height, width, generator=torch.Generator().manual_seed(0)) - 0.5
    picture = 0.5 + 0.2 * waves + 0.1 * noise + 0.1 * ((x - 0.5) ** 2 + (y - 0.4) ** 2 < 0.05)
    return (picture[None] * 255).round().clamp(0, 255) / 255


def as_pil(images: Tensor) -> Image.Image:
    return Image.fromarray((images[0].permute(1, 2, 0) * 255).round().byte().numpy())


def from_pil(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None].float() / 255


def assert_pils(images: Tensor, picture: Image.Image) -> None:
    """Equal to PIL's picture but for rare pixels one level off."""
    error = (images - from_pil(picture)).abs()
    assert error.mean() < 5e-5 and error.max() < 2 * LEVEL


@pytest.mark.parametrize(("shape", "scaled", "rounded", "floored"), SIZES)
def test_the_crops_are_those_of_torchvision_and_transformers(
    shape: tuple[int, int], scaled: tuple[int, int], rounded: tuple[int, int], floored: tuple[int, int]
) -> None:
    picture = as_pil(photo(*shape)).resize(scaled, Image.Resampling.BICUBIC)
    for fit, corner in ((pre.crop_to_square, rounded), (pre.crop_to_square_floor, floored)):
        assert_pils(fit(photo(*shape), 224), picture.crop((*corner, corner[0] + 224, corner[1] + 224)))


def test_the_crop_of_transformers_by_its_own_processor() -> None:
    from transformers import CLIPImageProcessor

    images = photo(64, 97)
    crop = CLIPImageProcessor(do_normalize=False, do_rescale=False)([images[0] * 255], return_tensors="pt")
    error = (pre.crop_to_square_floor(images, 224) - crop["pixel_values"].clamp(0, 255) / 255).abs()
    assert error.mean() < 0.5 / 255, "the same pixels; it resizes floats"


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
def test_the_squash_is_pils(mode: str) -> None:
    resample = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}[mode]
    assert_pils(pre.squash_to_square(photo(300, 451), 64, mode), as_pil(photo(300, 451)).resize((64, 64), resample))


@pytest.mark.parametrize("size", [(224, 224), (48, 32), (110, 40)])
def test_binary_noise_is_resized_as_pil_does(size: tuple[int, int]) -> None:
    """The hardest picture: overshoot everywhere. In one pass, without rounding, the mean error is above 5e-3."""
    noise = (torch.rand(1, 3, 96, 64, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    expected = as_pil(noise).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    assert_pils(pre.resize_bytes(noise, *size), expected)
    assert (pre.resize(noise, *size).clamp(0, 1) - from_pil(expected)).abs().mean() > 5e-3


def test_rounding_is_straight_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a graph the values are those without, and the gradient is that of the resize without rounding."""
    images, weights = photo(40, 60), torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(2))
    leaf = images.clone().requires_grad_()
    made = pre.crop_to_square(leaf, 28)
    assert torch.equal(made.detach(), pre.crop_to_square(images, 28))
    assert torch.allclose(made * 255, (made * 255).round(), atol=1e-4)
    (gradient,) = torch.autograd.grad((made * weights).sum(), leaf)
    monkeypatch.setattr(pre, "as_bytes", lambda x: x)
    (smooth,) = torch.autograd.grad((pre.crop_to_square(leaf, 28) * weights).sum(), leaf)
    assert torch.equal(gradient, smooth) and smooth.abs().sum() > 0


def test_an_overshoot_is_cut_off_as_pil_does_but_keeps_its_gradient() -> None:
    edge = torch.zeros(1, 3, 12, 12)
    edge[..., 6:] = 1
    edge.requires_grad_()
    sharp = pre.crop_to_square(edge, 48)
    assert sharp.min() == 0 and sharp.max() == 1 and pre.resize(edge, 48, 48).max() > 1.01
    assert_pils(sharp.detach(), as_pil(edge.detach()).resize((48, 48), Image.Resampling.BICUBIC))
    (gradient,) = torch.autograd.grad(sharp.sum(), edge)
    assert torch.allclose(gradient, torch.full_like(gradient, 16.0), atol=2.0) and (gradient > 0).all()


@pytest.mark.parametrize(
    ("height", "width", "inside"),
    [(512, 768, (37, 186, 0, 224)), (768, 512, (0, 224, 37, 186)), (100, 100, (0, 224, 0, 224))],
)
def test_the_pad_of_hpsv2(height: int, width: int, inside: tuple[int, int, int, int]) -> None:
    square = pre.pad_to_square(torch.full((1, 3, height, width), 0.5), 224)
    top, bottom, left, right = inside
    expected = torch.zeros(224, 224)
    expected[top:bottom, left:right] = 0.5
    assert torch.allclose(square[0], expected.expand(3, -1, -1), atol=1e-6)


def test_the_value_of_the_pad_after_normalising() -> None:
    done = pre.Preprocess(fit=pre.pad_to_square)(torch.full((1, 3, 512, 768), 0.5))
    assert done[0, :, 0, 0].tolist() == pytest.approx([-1.7923, -1.7521, -1.4802], abs=1e-4)
    assert done[0, :, 112, 112].tolist() == pytest.approx([0.0690, 0.1614, 0.3328], abs=1e-4)


def test_half_precision_is_widened_and_double_kept() -> None:
    path = pre.Preprocess(size=8)
    images = photo(16, 16)
    assert path(images.half()).dtype == path(images.bfloat16()).dtype == torch.float32
    assert path(images.double()).dtype == torch.float64


@pytest.mark.parametrize("fit", [pre.crop_to_square, pre.squash_to_square, pre.pad_to_square])
def test_the_gradient_is_exact(fit: pre.Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pre, "as_bytes", lambda x: x)  # finite differences would see the steps of the rounding
    path = pre.Preprocess(size=6, fit=fit)
    images = 0.3 + 0.4 * torch.rand(1, 3, 9, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.autograd.gradcheck(path, images.requires_grad_(), atol=1e-6)


def test_which_images_are_finite() -> None:
    images = torch.rand(3, 3, 4, 4)
    images[1, 2, 3, 3] = torch.nan
    images[2, 0, 0, 0] = torch.inf
    assert pre.check_images(images).tolist() == [True, False, False]
    assert pre.check_images(torch.tensor([-5e-4, 1 + 5e-4]).view(1, 1, 1, 2).expand(1, 3, 1, 2)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: (x * 255).byte(), "torch.uint8; 8-bit images carry no gradient"),
        (lambda x: x[:, :1], r"got \(2, 1, 4, 4\)"),
        (lambda x: x.movedim(1, -1), "channels come before height"),
        (lambda x: x[0], r"\(B, 3, H, W\)"),
        (lambda x: x[:0], "the batch is empty"),
        (lambda x: x * 2 - 1, "decoded latents in"),
        (lambda x: x + 0.01, "images are in .0, 1."),
    ],
)
def test_other_images_are_refused(change: Callable[[Tensor], Tensor], message: str) -> None:
    images = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).clamp(0, 1)
    images[0, 0, 0, 0], images[0, 0, 0, 1] = 0, 1
    with pytest.raises(ValueError, match=message):
        pre.check_images(change(images))
