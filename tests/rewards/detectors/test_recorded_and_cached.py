from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from diffalign.evaluation.judges import Detection
from diffalign.rewards.detectors import detector, judge
from diffalign.rewards.detectors._cached import cached, described
from diffalign.rewards.detectors._records import decode_mask, encode_mask, from_json, to_json

GENERATOR = torch.Generator().manual_seed(0)


def compressed(counts: list[int]) -> str:
    """COCO's compressed form, written after the description in its own source (cocoapi, rleToString)."""
    text = ""
    for i, count in enumerate(counts):
        x = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            bits, x = x & 0x1F, x >> 5
            more = x != -1 if bits & 0x10 else x != 0
            text += chr((bits | 0x20 if more else bits) + 48)
    return text


@pytest.mark.parametrize(
    "mask", [torch.rand(7, 9, generator=GENERATOR) > 0.5, torch.ones(40, 50).bool(), torch.zeros(2, 3).bool()]
)
def test_run_lengths_give_the_mask_back_plain_and_compressed(mask: Tensor) -> None:
    record = encode_mask(mask)
    assert torch.equal(decode_mask(record, "here"), mask)
    assert torch.equal(decode_mask(record | {"counts": compressed(record["counts"])}, "here"), mask)


def test_run_lengths_go_down_the_columns() -> None:
    mask = torch.tensor([[False, True], [True, True], [True, False]])
    assert encode_mask(mask) == {"size": [3, 2], "counts": [1, 4, 1]}
    with pytest.raises(ValueError, match="cover 5 pixels of 3 x 2"):
        decode_mask({"size": [3, 2], "counts": [1, 4]}, "here")


def test_a_detection_comes_back_from_json_with_all_that_it_has() -> None:
    one = Detection("cat", 0.75, (1.5, 2, 3, 4), "red", torch.rand(5, 6, generator=GENERATOR) > 0.5)
    back = from_json(json.loads(json.dumps(to_json(one))), "here")
    assert (back.label, back.score, back.box, back.color) == ("cat", 0.75, (1.5, 2, 3, 4), "red")
    assert back.mask is not None and one.mask is not None and torch.equal(back.mask, one.mask)
    assert set(to_json(Detection("cat", 0.5, (0, 0, 1, 1)))) == {"label", "score", "box"}
    for wrong in ({"label": "cat", "score": 1}, {"label": "cat", "score": 1, "box": [1, 2, 3]}, {"bbox": 1}, "cat"):
        with pytest.raises(ValueError, match="here"):
            from_json(wrong, "here")


def write_images(folder: Path, count: int = 2) -> Tensor:
    """Random pictures as `00000/0.png`, ...; what a reader sees of them."""
    pixels = torch.randint(0, 256, (count, 6, 5, 3), generator=GENERATOR, dtype=torch.uint8)
    (folder / "00000").mkdir(parents=True)
    for i, one in enumerate(pixels):
        Image.fromarray(one.numpy()).save(folder / "00000" / f"{i}.png")
    return pixels.permute(0, 3, 1, 2).float() / 255


def test_recorded_detections_are_found_by_pixels_best_first(tmp_path: Path) -> None:
    images = write_images(tmp_path)
    boxes = [{"label": "cat", "score": s, "box": [0, 0, 2, 3]} for s in (0.2, 0.9)]
    content: dict[str, Any] = {
        "detector": {"name": "mmdet-mask2former", "revision": "743b7d99"},
        "images": {"00000/0.png": boxes, "00000/1.png": []},
    }
    file = tmp_path / "detections.json"
    file.write_text(json.dumps(content))
    judge = detector("recorded", file=str(file))
    found = judge(images.flip(0), [["cat"]] * 2)
    assert not found[0] and [one.score for one in found[1]] == [0.9, 0.2]
    assert judge.name == "mmdet-mask2former" and judge.describe()["revision"] == "743b7d99"  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="no entry for an image of 5 x 6 pixels"):
        judge(1 - images, [[], []])
    file.write_text(json.dumps(content | {"images": {"00000/7.png": []}}))
    with pytest.raises(ValueError, match="first '00000/7.png'"):
        detector("recorded", file=str(file))
    file.write_text(json.dumps({"images": {}}))
    with pytest.raises(ValueError, match="must be an object"):
        detector("recorded", file=str(file))


class Counting:
    """A detector, a similarity or a P(yes), that counts images and fails where the picture is dark."""

    name = "counting"

    def __init__(self, role: str, version: str = "1") -> None:
        self.role, self.version, self.images = role, version, 0

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, "version": self.version}

    def __call__(self, images: Tensor, *rest: Any) -> Any:
        self.images += len(images)
        level = [float("nan") if value < 0.1 else value for value in images.flatten(1).mean(1).tolist()]
        if self.role == "similarity":
            return torch.tensor(level)
        if self.role == "yes":
            return [[value] * len(texts) for value, texts in zip(level, rest[0], strict=True)]
        mask = torch.eye(4).bool()
        return [
            [Detection(label, v, (0, 0, v, v), mask=mask) for label in ls] for v, ls in zip(level, rest[0], strict=True)
        ]


def test_detections_are_asked_for_once_and_come_back_whole(tmp_path: Path) -> None:
    images, labels = torch.rand(3, 3, 4, 4, generator=GENERATOR), [["cat"], ["cat", "dog"], []]
    inner = Counting("detect")
    first = cached(inner, "detect", tmp_path)(images, labels)
    again = cached(inner, "detect", tmp_path)(images, labels)
    assert inner.images == 3
    for left, right in zip(first, again, strict=True):
        assert [(o.label, o.score, o.box) for o in left] == [(o.label, o.score, o.box) for o in right]
        assert all(o.mask is not None and torch.equal(o.mask, torch.eye(4).bool()) for o in right)
    cached(inner, "detect", tmp_path)(images, [["dog"], ["cat", "dog"], []])
    assert inner.images == 6  # a batch is asked as a whole
    other = Counting("detect", version="2")
    cached(other, "detect", tmp_path)(images, labels)
    assert other.images == 3


def test_failures_are_asked_again_and_tensors_stay_tensors(tmp_path: Path) -> None:
    images = torch.stack([torch.full((3, 4, 4), 0.05), torch.full((3, 4, 4), 0.5)])
    for role, rest in (("yes", ([["a?"], ["a?", "b?"]],)), ("similarity", (["a", "b"],))):
        inner = Counting(role)
        keep = cached(inner, role, tmp_path)
        for _ in range(2):
            answers = keep(images, *rest)
            assert isinstance(answers, Tensor) == (role == "similarity")
        assert inner.images == 4
        good = keep(images[1:], rest[0][1:])
        assert inner.images == 4 and len(good) == 1


def test_what_may_change_is_not_kept(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def find(images, labels):\n    return [[] for _ in images]\n")
    mine = detector(f"{file}:find")
    assert cached(mine, "detect", tmp_path) is mine
    assert cached(len, "yes", tmp_path) is len and described(len) == {"name": "len", "revision": ""}
    depth = Counting("depth")
    assert cached(depth, "depth", tmp_path) is depth
    assert judge("detect", "shapes").describe()["name"] == "shapes"  # type: ignore[attr-defined]
