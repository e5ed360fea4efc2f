from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import diffalign.rewards as rewards
from diffalign.rewards.heads import LinearHead, ScoreHead

Published = dict[str, dict[str, Any]]
IMAGES = torch.rand(3, 3, 28, 28, generator=torch.Generator().manual_seed(0))


def directions(folder: Path) -> Tensor:
    """Normalised image embeddings of the CLIP in a folder, by transformers itself."""
    from transformers import CLIPModel

    mean, std = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])
    model = CLIPModel.from_pretrained(folder).eval()
    with torch.no_grad():
        out = model.get_image_features(pixel_values=(IMAGES - mean[:, None, None]) / std[:, None, None]).pooler_output
    return out / out.norm(dim=-1, keepdim=True)


def test_version_2_is_one_affine_map_of_the_direction(published: Published) -> None:
    arguments = published["aesthetic"]
    state = torch.load(Path(arguments["head"]) / "sac+logos+ava1-l14-linearMSE.pth", weights_only=True)
    assert sorted(state) == sorted(f"layers.{i}.{kind}" for i in (0, 2, 4, 6, 7) for kind in ("weight", "bias"))
    weight, bias = torch.eye(24, dtype=torch.float64), torch.zeros(24, dtype=torch.float64)
    for index in (0, 2, 4, 6, 7):
        matrix = state[f"layers.{index}.weight"].double()
        weight, bias = matrix @ weight, matrix @ bias + state[f"layers.{index}.bias"].double()
    expected = (directions(arguments["clip"]).double() @ weight.T + bias).squeeze(-1)
    found = rewards.get("aesthetic", **arguments)(IMAGES, [""] * 3, [{}] * 3)
    assert torch.allclose(found.double(), expected, rtol=1e-4, atol=1e-5)


def test_version_1_is_linear_in_the_direction(published: Published) -> None:
    arguments = published["aesthetic_v1"]
    state = torch.load(Path(arguments["head"]) / "sa_0_4_vit_l_14_linear.pth", weights_only=True)
    expected = (directions(arguments["clip"]) @ state["weight"].T + state["bias"]).squeeze(-1)
    reward = rewards.get("aesthetic_v1", **arguments)
    assert torch.allclose(reward(IMAGES, [""] * 3, [{}] * 3), expected, rtol=1e-4, atol=1e-5)
    assert reward.name == "aesthetic_v1"


def test_the_length_of_the_embedding_plays_no_part(published: Published) -> None:
    reward = rewards.get("aesthetic", **published["aesthetic"])
    before = reward(IMAGES, [""] * 3, [{}] * 3)
    module = reward._module  # type: ignore[attr-defined]
    module.tower.model.visual_projection.weight.data.mul_(3.7)
    assert torch.allclose(reward(IMAGES, [""] * 3, [{}] * 3), before, rtol=1e-5)


def test_the_projection_is_the_joint_models(published: Published, tmp_path: Path) -> None:
    """The half of CLIP alone would take its projection's width from a default of 512."""
    reward = rewards.get("aesthetic", **published["aesthetic"])
    assert reward._module.tower.model.config.projection_dim == 24  # type: ignore[attr-defined]


def test_a_missing_clip_is_named_beside_the_head(published: Published, no_hub: Path) -> None:
    with pytest.raises(ValueError, match="openai/clip-vit-large-patch14 .*clip=/path/to"):
        rewards.get("aesthetic", head=published["aesthetic"]["head"])


def test_a_head_for_another_clip_is_refused(tmp_path: Path, published: Published) -> None:
    from tests.tiny_rewards import save_heads

    save_heads(tmp_path / "wide", width=32)
    for name, key in [("aesthetic", "layers.0.weight"), ("aesthetic_v1", "weight")]:
        with pytest.raises(ValueError, match=rf"other shapes {key} .*32\) instead of .*24\)"):
            rewards.get(name, head=tmp_path / "wide", clip=published["aesthetic"]["clip"])


@pytest.mark.parametrize("kind", [ScoreHead, LinearHead])
def test_heads_stay_in_single_precision(kind: type[ScoreHead]) -> None:
    head = kind(8)
    out = head(torch.randn(4, 8, dtype=torch.bfloat16))
    assert out.shape == (4,) and out.dtype == torch.float32
    assert head.double()(torch.randn(4, 8, dtype=torch.float64)).dtype == torch.float64


def test_half_precision_leaves_the_head_alone(published: Published) -> None:
    reward = rewards.get("aesthetic", **published["aesthetic"]).to(dtype=torch.bfloat16)
    module = reward._module  # type: ignore[attr-defined]
    assert {value.dtype for value in module.head.parameters()} == {torch.float32}
    assert {value.dtype for value in module.tower.parameters()} == {torch.bfloat16}


def test_dropout_stands_after_the_first_three_layers() -> None:
    rates = [part.p for part in ScoreHead(4).layers if isinstance(part, torch.nn.Dropout)]
    assert rates == [0.2, 0.2, 0.1]
    assert [tuple(part.weight.shape) for part in ScoreHead(768).layers if isinstance(part, torch.nn.Linear)] == [
        (1024, 768),
        (128, 1024),
        (64, 128),
        (16, 64),
        (1, 16),
    ]
