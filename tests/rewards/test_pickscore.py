from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import diffalign.rewards as rewards
from diffalign.rewards.images import crop_to_square

Published = dict[str, dict[str, Any]]
IMAGES = torch.rand(2, 3, 28, 28, generator=torch.Generator().manual_seed(0))


def test_a_cosine_of_021_is_21_points_and_two_scores_differ_by_a_logit(published: Published) -> None:
    model = rewards.get("pickscore", **published["pickscore"])
    cosine = rewards.get("clip", **published["clip"])(IMAGES, ["a cat"] * 2, [{}] * 2)
    scores = model(IMAGES, ["a cat"] * 2, [{}] * 2)
    assert torch.allclose(scores, cosine * (21.0 / 0.21), rtol=1e-5)
    preferred = scores.softmax(0)[0]
    assert preferred.item() == pytest.approx(1 / (1 + math.exp(scores[1] - scores[0])), rel=1e-5)
    assert model.range == pytest.approx((-100, 100)) and model.name == "pickscore"


def test_the_scale_is_the_checkpoints_own(published: Published, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(published["pickscore"]["path"], tmp_path / "copy"))
    state = load_file(folder / "model.safetensors")
    save_file({**state, "logit_scale": torch.tensor(math.log(20.0))}, folder / "model.safetensors", {"format": "pt"})
    rescaled, usual = rewards.get("pickscore", path=folder), rewards.get("pickscore", **published["pickscore"])
    args = (IMAGES, ["a cat", "a dog"], [{}] * 2)
    assert torch.allclose(5 * rescaled(*args), usual(*args), rtol=1e-5)


def test_the_transform_is_clips_whatever_stands_beside_the_model(published: Published, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(published["pickscore"]["path"], tmp_path / "copy"))
    (folder / "preprocessor_config.json").unlink()
    wide = torch.rand(1, 3, 40, 60, generator=torch.Generator().manual_seed(1))
    reward = rewards.get("pickscore", path=folder)
    square = crop_to_square(wide, 28)
    assert torch.allclose(reward(wide, ["a cat"], [{}]), reward(square, ["a cat"], [{}]), rtol=1e-5)


def test_the_tokenizer_is_the_published_processors_unless_the_copy_brings_one(
    published: Published, tmp_path: Path, no_hub: Path
) -> None:
    folder = Path(shutil.copytree(published["pickscore"]["path"], tmp_path / "copy"))
    for file in folder.glob("*token*"):
        file.unlink()
    with pytest.raises(ValueError, match="laion/CLIP-ViT-H-14-laion2B-s32B-b79K"):
        rewards.get("pickscore", path=folder)
    given = rewards.get("pickscore", path=folder, tokenizer=published["pickscore"]["path"])
    assert given(IMAGES, ["a cat"] * 2, [{}] * 2).isfinite().all()
