from __future__ import annotations

import pytest
import torch
from torch import Tensor

import diffalign.rewards as rewards
from diffalign.evaluation.judges import Detection
from diffalign.rewards.detectors import judge
from diffalign.rewards.detectors.clip import BACKGROUND, COLORS, crop_object
from diffalign.shapes import detect, prompts, render_batch, sample_scene


def scenes(tag: str, count: int) -> tuple[list[dict[str, object]], Tensor]:
    lines = [line for line in prompts("train") if line["tag"] == tag][::7][:count]
    generator = torch.Generator().manual_seed(0)
    return lines, render_batch([sample_scene(line, generator) for line in lines])


def test_a_crop_is_the_box_with_grey_around_the_mask() -> None:
    image = torch.rand(3, 10, 12, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(10, 12, dtype=torch.bool)
    mask[2:5, 3:7] = True
    mask[2, 3] = False
    crop = crop_object(image, Detection("cat", 1.0, (3, 2, 7, 5), mask=mask))
    assert crop.shape == (3, 3, 4) and torch.equal(crop[:, 1:], image[:, 3:5, 3:7])
    assert crop[:, 0, 0].tolist() == pytest.approx([BACKGROUND] * 3)
    bare = crop_object(image, Detection("cat", 1.0, (-3.2, 7.6, 4.4, 20)))
    assert torch.equal(bare, image[:, 8:, :4])


def test_objects_without_a_pixel_have_no_colour() -> None:
    name_colors = judge("color", "clip", model="shapes-clip", device="cpu")
    found = name_colors(torch.rand(2, 3, 32, 32), [[Detection("circle", 1.0, (4, 4, 4, 9))], []])
    assert found == [[None], []]


def test_the_colour_is_the_likeliest_of_ten_texts_averaged_over_three_forms() -> None:
    """Against the rule written out with the model's own features, on crops of the embedded world."""
    from diffalign.rewards.clip_models import load_clip

    _, images = scenes("color_attr", 4)
    objects = detect(images)
    found = judge("color", "clip", model="shapes-clip", device="cpu")(images, objects)
    model = load_clip("shapes-clip").eval()  # type: ignore[attr-defined]

    def unit(features: Tensor) -> Tensor:
        return features / features.norm(dim=-1, keepdim=True)

    for image, some, names in zip(images, objects, found, strict=True):
        for one, name in zip(some, names, strict=True):
            forms = [
                unit(model.text_features([f"a photo of a {c} {one.label}", f"a photo of a {c}-colored {one.label}",
                                          f"a photo of a {c} object"])).mean(0)
                for c in COLORS
            ]  # fmt: skip
            feature = model.image_features(crop_object(image, one)[None])[0]
            assert name == COLORS[int((torch.stack([unit(form) for form in forms]) @ feature).argmax())]


def test_colours_of_the_embedded_world_are_mostly_right() -> None:
    """Its CLIP was trained on whole scenes in eight colours; chance among ten names is .1."""
    lines, images = scenes("colors", 24)
    objects = [found[:1] for found in detect(images)]
    found = judge("color", "clip", model="shapes-clip", device="cpu")(images, objects)
    right = [names[0] == line["include"][0]["color"] for names, line in zip(found, lines, strict=True)]  # type: ignore[index]
    assert sum(right) / len(right) > 0.4


def test_the_similarity_is_the_clip_rewards_cosine() -> None:
    lines, images = scenes("colors", 5)
    texts = [str(line["prompt"]) for line in lines]
    ours = judge("similarity", "clip", model="shapes-clip", batch_size=2, device="cpu")(images, texts)
    theirs = rewards.get("clip", model="shapes-clip")(images, texts, [{}] * 5)
    assert torch.allclose(ours, theirs, atol=1e-5) and ours.std() > 1e-3
