from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffalign.rewards.detectors import _instances, detector
from diffalign.rewards.detectors._coco import GENEVAL_NAMES

Tiny = Callable[[str], str]
CERTAIN = math.log(3)
"""A mask logit of probability 3/4."""


def rectangle(height: int, width: int, box: tuple[int, int, int, int], inside: float = CERTAIN) -> Tensor:
    """Mask logits, -5 outside the box (x0, y0, x1, y1)."""
    logits = torch.full((height, width), -5.0)
    logits[box[1] : box[3], box[0] : box[2]] = inside
    return logits


def logits_of(*probabilities: float) -> Tensor:
    return torch.tensor(probabilities).log()


def test_a_score_is_class_probability_times_mean_mask_probability_and_boxes_end_behind_the_mask() -> None:
    classes = torch.stack([logits_of(0.1, 0.6, 0.3), logits_of(0.8, 0.1, 0.1), logits_of(0.02, 0.02, 0.96)])
    masks = torch.stack(
        [rectangle(32, 32, (4, 6, 10, 20)), rectangle(32, 32, (20, 1, 32, 9)), rectangle(32, 32, (0, 0, 9, 9))]
    )
    found = _instances.instances(classes, masks, (32, 32), (32, 32), (32, 32), floor=0.05)
    assert found.scores.tolist() == pytest.approx([0.6, 0.45, 0.075, 0.075], abs=1e-6)
    assert found.labels.tolist()[:2] == [0, 1] and sorted(found.labels.tolist()[2:]) == [0, 1]
    assert found.boxes[:2].tolist() == [[20, 1, 32, 9], [4, 6, 10, 20]]
    assert found.masks[0].sum() == 12 * 8 and found.masks.dtype == torch.bool


def test_no_object_is_no_class_and_an_empty_mask_no_instance() -> None:
    classes = torch.stack([logits_of(0.01, 0.99), logits_of(0.9, 0.1)])
    masks = torch.stack([rectangle(32, 32, (0, 0, 9, 9)), torch.full((32, 32), -1.0)])
    assert not len(_instances.instances(classes, masks, (32, 32), (32, 32), (32, 32), floor=0.05).scores)


def test_only_the_hundred_likeliest_pairs_count() -> None:
    classes = torch.zeros(60, 3)
    found = _instances.instances(classes, torch.ones(60, 8, 8), (32, 32), (32, 32), (32, 32))
    assert len(found.scores) == 100


def test_masks_leave_the_padding_and_come_back_to_the_images_size() -> None:
    """A 48 x 80 image at 800 x 1333 is padded to 800 x 1344; the mask is a quarter of the padded sides."""
    size, resized = (48, 80), _instances.resized_sides(48, 80)
    assert resized == (800, 1333)
    pixels = _instances.pixel_input(torch.rand(1, 3, *size), *resized)
    assert pixels.shape[-2:] == (800, 1344) and not pixels[..., 1333:].any()
    wanted = (20, 12, 60, 36)
    scale = resized[1] / size[1] / 4
    masks = rectangle(200, 336, tuple(round(edge * scale) for edge in wanted))[None]  # type: ignore[arg-type]
    found = _instances.instances(logits_of(0.9, 0.1)[None], masks, (800, 1344), resized, size)
    assert found.masks.shape[-2:] == size
    assert torch.allclose(found.boxes[0], torch.tensor(wanted).float(), atol=1)


def test_what_the_padding_shows_is_no_part_of_the_image() -> None:
    masks = rectangle(64, 64, (16, 16, 32, 32))[None]
    found = _instances.instances(logits_of(0.9, 0.1)[None], masks, (64, 64), (40, 48), (20, 24))
    assert torch.allclose(found.boxes[0], torch.tensor([8.0, 8, 16, 16]), atol=1)


@pytest.mark.parametrize(
    ("size", "resized"),
    [((512, 512), (800, 800)), ((1024, 1024), (800, 800)), ((1024, 512), (1333, 667)), ((32, 48), (800, 1200))],
)
def test_the_short_side_is_800_unless_the_long_one_would_pass_1333(
    size: tuple[int, int], resized: tuple[int, int]
) -> None:
    assert _instances.resized_sides(*size) == resized


def test_pixels_are_detectron2s_pil_resize_normalised_then_padded_with_zeros() -> None:
    import numpy as np
    from PIL import Image

    image = torch.randint(0, 256, (3, 400, 900), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    picture = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((1333, 592), Image.Resampling.BILINEAR)
    wanted = (torch.tensor(np.array(picture)).float() - torch.tensor([123.675, 116.28, 103.53])) / torch.tensor(
        [58.395, 57.12, 57.375]
    )
    assert _instances.resized_sides(400, 900) == (592, 1333)
    pixels = _instances.pixel_input(image[None] / 255, 592, 1333)
    assert pixels.shape == (1, 3, 608, 1344)
    assert torch.allclose(pixels[0, :, :592, :1333], wanted.permute(2, 0, 1), atol=0.02)
    assert not pixels[..., 592:, :].any() and not pixels[..., 1333:].any()


def test_the_detector_reports_geneval_names_with_masks_whatever_the_batch(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_instances, "SHORT", 64)
    images = torch.rand(3, 3, 40, 56, generator=torch.Generator().manual_seed(0))
    judge = detector("mask2former", model=tiny("mask2former"), floor=0.0, batch_size=2, device="cpu")
    found = judge(images, [["cat"]] * 3)
    alone = detector("mask2former", model=tiny("mask2former"), floor=0.0, device="cpu")(images[2:], [["cat"]])[0]
    assert [len(one) for one in found] == [100] * 3
    for one, other in zip(found[2], alone, strict=True):
        assert one.score == pytest.approx(other.score, rel=1e-4)
    for one in found[0]:
        assert one.label in GENEVAL_NAMES and one.mask is not None and one.mask.shape == (40, 56)
        rows, columns = one.mask.nonzero().unbind(1)
        assert one.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    scores = [one.score for one in found[0]]
    assert scores == sorted(scores, reverse=True)


def test_other_vocabularies_keep_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.tiny_judges import save_mask2former

    monkeypatch.setattr(_instances, "SHORT", 64)
    folder = str(save_mask2former(tmp_path / "three", labels=3))
    images = torch.rand(1, 3, 40, 40)
    labels = {one.label for one in detector("mask2former", model=folder, floor=0.0)(images, [[]])[0]}
    assert labels <= {"thing 0", "thing 1", "thing 2"}
    with pytest.raises(ValueError, match="3 classes, names has 2"):
        detector("mask2former", model=folder, names=["a", "b"])
