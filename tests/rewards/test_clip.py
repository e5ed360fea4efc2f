"""Similarity of image and prompt: the value itself, its scalings, and the models of both libraries."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import diffalign.rewards as rewards
from diffalign.rewards.clip import SimilarityReward, clipscore, percent
from diffalign.rewards.clip_models import load_clip
from diffalign.rewards.images import crop_to_square, pad_to_square, resize_bytes, squash_to_square

Published = dict[str, dict[str, Any]]
PROMPTS = ["a red cat", "a blue dog"]


def pictures() -> Tensor:
    return torch.rand(2, 3, 28, 28, generator=torch.Generator().manual_seed(0))


class Fixed(nn.Module):
    """Image embeddings are the mean colour; text embeddings are looked up; counts the prompts it encodes."""

    context = 3

    def __init__(self, logit_scale: float = 1.0) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(()))
        self.logit_scale = logit_scale
        self.encoded: list[str] = []

    def image_features(self, images: Tensor) -> Tensor:
        return 7 * images.mean((2, 3)) + self.anchor

    def text_features(self, texts: Sequence[str]) -> Tensor:
        self.encoded += texts
        return torch.stack([5 * torch.tensor([float("red" in t), 1.0, 0.0]).to(self.anchor) for t in texts])

    def too_long(self, texts: Sequence[str]) -> list[bool]:
        return [len(text.split()) > self.context for text in texts]


class Similarity(SimilarityReward):
    name = "similarity"


def solid(*colour: float) -> Tensor:
    return torch.tensor(colour)[None, :, None, None].expand(1, 3, 4, 4)


def test_the_cosine_knows_no_lengths() -> None:
    reward = Similarity(Fixed())
    images = torch.cat([solid(0.2, 0.2, 0.0), solid(0.9, 0.9, 0.0), solid(0.0, 0.5, 0.0)])
    scores = reward(images, ["red", "red", "red"], [{}] * 3)
    assert scores.tolist() == pytest.approx([1.0, 1.0, 1 / math.sqrt(2)], abs=1e-6)


def test_each_prompt_is_encoded_once_and_the_memory_is_emptied_by_a_move() -> None:
    model = Fixed()
    reward = Similarity(model)
    images = solid(0.3, 0.2, 0.1).expand(4, -1, -1, -1)
    for _ in range(2):
        reward(images, ["red", "blue", "red", "blue"], [{}] * 4)
    assert sorted(model.encoded) == ["blue", "red"]
    assert reward.to(dtype=torch.float64)(images, ["red"] * 4, [{}] * 4).dtype == torch.float64
    assert model.encoded.count("red") == 2


def test_the_three_scalings() -> None:
    value = torch.tensor([0.21, -0.3])
    assert percent(value).tolist() == pytest.approx([21.0, -30.0])
    assert clipscore(value).tolist() == pytest.approx([0.525, 0.0])


def test_scalings_of_one_model_agree_and_are_told_apart(published: Published) -> None:
    made = {s: rewards.get("clip", **published["clip"], scaling=s) for s in ("cosine", "percent", "clipscore")}
    scores = {name: reward(pictures(), PROMPTS, [{}] * 2) for name, reward in made.items()}
    assert torch.allclose(scores["percent"], 100 * scores["cosine"])
    assert [made[s].name for s in made] == ["clip_clip", "clip_clip_percent", "clip_clip_clipscore"]
    assert [made[s].range for s in made] == [(-1, 1), (-100, 100), (0, 2.5)]
    with pytest.raises(ValueError, match="unknown clip scaling `logit`.*valid: clipscore, cosine, percent"):
        rewards.get("clip", **published["clip"], scaling="logit")


def test_clipscore_is_that_of_the_released_code(published: Published, caplog: pytest.LogCaptureFixture) -> None:
    """jmhessel/clipscore: `w = 2.5`, `np.clip(cosine, 0, None)`, captions behind "A photo depicts "."""
    plain, paper = (rewards.get("clip", **published["clip"], scaling=s) for s in ("cosine", "clipscore"))
    behind = plain(pictures(), [f"A photo depicts {prompt}" for prompt in PROMPTS], [{}] * 2)
    assert paper(pictures(), PROMPTS, [{}] * 2).tolist() == pytest.approx((2.5 * behind).tolist(), abs=1e-6)
    assert (behind - plain(pictures(), PROMPTS, [{}] * 2)).abs().min() > 1e-3, "the prefix counts"
    paper(pictures(), [" ".join(["cat"] * 9)] * 2, [{}] * 2)
    assert "reads 12 tokens" in caplog.text, "9 words, 3 of the prefix and the two ends are too many"


def test_the_score_is_that_of_the_library(published: Published) -> None:
    from transformers import AutoTokenizer, CLIPModel

    folder = published["clip"]["model"]
    model, tokenizer = CLIPModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer(PROMPTS, padding=True, return_tensors="pt")
    mean, std = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])
    with torch.no_grad():
        out = model(**tokens, pixel_values=(pictures() - mean[:, None, None]) / std[:, None, None])
    expected = out.logits_per_image.diagonal() / 100
    assert torch.allclose(rewards.get("clip", model=folder)(pictures(), PROMPTS, [{}] * 2), expected, atol=1e-5)


def test_siglip_reads_squashed_images_and_full_padding(tmp_path: Path) -> None:
    from tests.tiny_rewards import save_siglip

    model = save_siglip(tmp_path / "siglip").eval()
    reward = rewards.get("clip", model=tmp_path / "siglip")
    ids = torch.zeros(2, 12, dtype=torch.long)
    ids[0, :5], ids[1, :5] = torch.tensor([2, 4, 9, 12, 3]), torch.tensor([2, 4, 11, 13, 3])
    with torch.no_grad():
        image, text = (
            model.get_image_features(pixel_values=pictures() * 2 - 1).pooler_output,
            model.get_text_features(input_ids=ids, attention_mask=(ids > 0).long()).pooler_output,
        )
    expected = torch.cosine_similarity(image, text)
    assert torch.allclose(reward(pictures(), PROMPTS, [{}] * 2), expected, atol=1e-5)
    assert load_clip(tmp_path / "siglip").preprocess.fit is squash_to_square  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def open_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("open_clip")
    from tests.tiny_rewards import save_open_clip

    folder = tmp_path_factory.mktemp("open") / "mine"
    save_open_clip(folder)
    return folder


def test_a_folder_of_open_clip_with_its_own_tokenizer(open_folder: Path) -> None:
    import open_clip

    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{open_folder}")
    tokens = open_clip.get_tokenizer(f"local-dir:{open_folder}")(PROMPTS)
    from torchvision.transforms.functional import to_pil_image

    images = (pictures() * 255).round() / 255
    pixels = torch.stack([transform(to_pil_image(image)) for image in images])
    with torch.no_grad():
        image, text = model.eval().encode_image(pixels), model.encode_text(tokens)
    expected = torch.cosine_similarity(image, text)
    for spec in (open_folder, f"local-dir:{open_folder}"):
        reward = rewards.get("clip", model=spec)
        assert torch.allclose(reward(images, PROMPTS, [{}] * 2), expected, atol=1e-5)
        assert reward.name == "clip_mine"
    assert load_clip(open_folder).context == 12


def test_open_clip_may_not_fall_back_to_random_weights(open_folder: Path, tmp_path: Path, no_hub: Path) -> None:
    shutil.copytree(open_folder, tmp_path / "bare")
    (tmp_path / "bare" / "open_clip_model.safetensors").unlink()
    with pytest.raises(ValueError, match="open_clip_model.safetensors.*model=/path/to"):
        rewards.get("clip", model=tmp_path / "bare")
    with pytest.raises(ValueError, match="some/model open_clip_config.json.*hf download"):
        rewards.get("clip", model="hf-hub:some/model")
    with pytest.raises(ValueError, match="ViT-B-32.* open_clip_model.safetensors|pretrained=/path/to"):
        rewards.get("clip", model="ViT-B-32", pretrained="laion2b_s34b_b79k")


def test_names_and_tags_that_open_clip_does_not_know() -> None:
    pytest.importorskip("open_clip")
    with pytest.raises(ValueError, match="no architecture 'ViT-H-41'; did you mean .*`ViT-H-14`"):
        rewards.get("clip", model="ViT-H-41", pretrained="laion2b_s32b_b79k")
    with pytest.raises(ValueError, match="pretrained='laion3b' of ViT-H-14.*tags: .*laion2b_s32b_b79k"):
        rewards.get("clip", model="ViT-H-14", pretrained="laion3b")


@pytest.mark.parametrize(
    ("change", "fit"),
    [
        ({}, crop_to_square),
        ({"resize_mode": "squash"}, squash_to_square),
        ({"resize_mode": "longest"}, partial(pad_to_square, resizer=resize_bytes)),
    ],
)
def test_the_transforms_of_open_clip(change: dict[str, Any], fit: Any) -> None:
    from diffalign.rewards.clip_open_clip import preprocess_from

    config = {"size": (28, 28), "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "fill_color": 0}
    made = preprocess_from({**config, "resize_mode": "shortest", **change}, "it")
    images = 0.3 + 0.4 * torch.rand(1, 3, 40, 60)
    assert made.size == 28 and torch.allclose(made(images), fit(images, 28, "bicubic") * 2 - 1, atol=1e-6)
    for bad in ({"resize_mode": "crop"}, {"size": (28, 30)}, {"interpolation": "nearest"}, {"fill_color": 9}):
        with pytest.raises(ValueError, match="the transform of it is not supported"):
            preprocess_from({**config, "resize_mode": "shortest", **bad}, "it")


def test_a_transform_of_transformers_that_is_no_square_is_refused(published: Published, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(published["clip"]["model"], tmp_path / "clip"))
    config = json.loads((folder / "preprocessor_config.json").read_text())
    for bad in ({"resample": 0}, {"size": {"shortest_edge": 32}}, {"do_center_crop": False}):
        (folder / "preprocessor_config.json").write_text(json.dumps({**config, **bad}))
        with pytest.raises(ValueError, match="the transform of .* is not one of"):
            rewards.get("clip", model=folder)


def test_a_model_without_a_common_space_is_refused(tmp_path: Path) -> None:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    CLIPVisionModel(CLIPVisionConfig(**sizes, image_size=8, patch_size=4)).save_pretrained(tmp_path / "vision")
    with pytest.raises(ValueError, match="has no common space of image and text"):
        rewards.get("clip", model=tmp_path / "vision")


def test_a_library_that_is_absent_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ValueError, match=r"needs open_clip .*diffalign\[clip\]"):
        rewards.get("hpsv2", path=tmp_path)
