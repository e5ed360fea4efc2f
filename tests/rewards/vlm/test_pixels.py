from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torch import Tensor

from diffalign.rewards.vlm.pixels import coloured, pads, pixel_values, prepare

PLAIN = ["CLIPImageProcessor", "ViTImageProcessor", "BitImageProcessor", "SiglipImageProcessor"]
PLAIN += ["EfficientNetImageProcessor", "Qwen2VLImageProcessor"]


@pytest.fixture
def photo() -> Tensor:
    """`(1, 3, 60, 90)`, smooth as photos are, on the grid of 8 bits."""
    coarse = torch.rand(1, 3, 6, 9, generator=torch.Generator().manual_seed(1))
    smooth = torch.nn.functional.interpolate(coarse, (60, 90), mode="bicubic").clamp(0, 1)
    return (smooth * 255).round() / 255


def by_pil(processor: Any, photo: Tensor) -> Tensor:
    pixels = (photo[0] * 255).round().byte().permute(1, 2, 0).numpy().astype(np.uint8)
    made: Tensor = processor(images=[Image.fromarray(pixels)], return_tensors="pt")["pixel_values"]
    return made


@pytest.mark.parametrize("name", PLAIN)
def test_floats_with_a_gradient_are_what_pil_images_become(name: str, photo: Tensor) -> None:
    processor = getattr(transformers, name)()
    made = pixel_values(photo.requires_grad_(), processor)
    assert made.requires_grad
    assert (made - by_pil(processor, photo)).abs().mean() < 0.02  # 8-bit rounding after the resize: half a level of 255


def test_align_rescales_to_minus_one(photo: Tensor) -> None:
    processor = transformers.EfficientNetImageProcessor(
        size={"height": 34, "width": 34}, crop_size={"height": 28, "width": 28}, do_center_crop=True,
        rescale_factor=1 / 127.5, rescale_offset=True, do_normalize=False, include_top=False, resample=2,
    )  # fmt: skip
    made = pixel_values(photo, processor)
    assert made.shape == (1, 3, 28, 28) and made.min() >= -1
    assert (made - by_pil(processor, photo)).abs().max() < 0.02
    assert torch.allclose(coloured(torch.ones(1, 3, 2, 2), processor), torch.ones(1, 3, 2, 2))
    assert torch.allclose(coloured(torch.zeros(1, 3, 2, 2), processor), -torch.ones(1, 3, 2, 2))


def test_a_processor_that_pads_with_black_colours_by_itself(photo: Tensor) -> None:
    processor = transformers.LlavaOnevisionImageProcessor(size={"height": 28, "width": 28})
    assert pads(processor) and not pads(transformers.CLIPImageProcessor())
    prepared, options = prepare(photo, processor)
    assert torch.equal(prepared, photo * 255) and options == {}
    made = processor(images=list(prepared), return_tensors="pt", **options)["pixel_values"]
    pil = by_pil(processor, photo)
    assert made.shape == pil.shape and (made - pil).abs().mean() < 0.02


def test_the_precision_of_the_images_is_kept_and_gradients_are_exact() -> None:
    processor = transformers.CLIPImageProcessor(size={"shortest_edge": 5}, crop_size={"height": 4, "width": 4})
    images = torch.rand(1, 3, 6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert pixel_values(images, processor).dtype == torch.float64
    assert pixel_values(images.half(), processor).dtype == torch.float32
    assert torch.autograd.gradcheck(lambda x: pixel_values(x, processor), images.requires_grad_())


def test_without_rescaling_bytes_are_expected() -> None:
    processor = transformers.CLIPImageProcessor(do_rescale=False, do_normalize=False)
    assert torch.equal(coloured(torch.ones(1, 3, 2, 2), processor), torch.full((1, 3, 2, 2), 255.0))


def test_a_processor_of_pil_is_refused(photo: Tensor) -> None:
    class Old:
        do_pad = False

    with pytest.raises(ValueError, match="Old works in PIL.*install torchvision"):
        prepare(photo, Old())
