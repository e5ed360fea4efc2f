from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from diffalign.rewards import images as pre

# height, width -> size after PIL's resize as (width, height), upper left corner of the crop, by hand from torchvision
SIZES = [
    ((512, 512), (224, 224), (0, 0)),
    ((300, 451), (336, 224), (56, 0)),
    ((451, 300), (224, 336), (0, 56)),
    ((97, 64), (224, 339), (0, 58)),
    ((20, 33), (369, 224), (72, 0)),
]


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


@pytest.mark.parametrize(("shape", "scaled", "corner"), SIZES)
def test_the_crop_is_pils(shape: tuple[int, int], scaled: tuple[int, int], corner: tuple[int, int]) -> None:
    picture = as_pil(photo(*shape)).resize(scaled, Image.Resampling.BICUBIC)
    expected = from_pil(picture.crop((*corner, corner[0] + 224, corner[1] + 224)))
    assert (pre.crop_to_square(photo(*shape), 224) - expected).abs().max() < 1.6 / 255


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
def test_the_squash_is_pils(mode: str) -> None:
    resample = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}[mode]
    expected = from_pil(as_pil(photo(300, 451)).resize((64, 64), resample))
    assert (pre.squash_to_square(photo(300, 451), 64, mode) - expected).abs().max() < 1.6 / 255


def test_an_overshoot_is_cut_off_as_pil_does_but_keeps_its_gradient() -> None:
    edge = torch.zeros(1, 3, 12, 12)
    edge[..., 6:] = 1
    edge.requires_grad_()
    sharp = pre.crop_to_square(edge, 48)
    assert sharp.min() == 0 and sharp.max() == 1 and pre.resize(edge, 48, 48).max() > 1.01
    assert (sharp - from_pil(as_pil(edge.detach()).resize((48, 48), Image.Resampling.BICUBIC))).abs().max() < 1.6 / 255
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
def test_the_gradient_is_exact(fit: pre.Fit) -> None:
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
