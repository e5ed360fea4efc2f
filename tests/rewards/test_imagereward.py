"""ImageReward against the original BLIP, written out in plain tensor operations under the names of its checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import diffalign.rewards as rewards
from diffalign.rewards import blip, imagereward

State = dict[str, Tensor]


def linear(state: State, name: str, x: Tensor) -> Tensor:
    return functional.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def norm(state: State, name: str, x: Tensor, eps: float) -> Tensor:
    weight = state[f"{name}.weight"]
    return functional.layer_norm(x, weight.shape, weight, state[f"{name}.bias"], eps)


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int, bias: Tensor | float = 0.0) -> Tensor:
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    weight = (q @ k.mT / q.shape[-1] ** 0.5 + bias).softmax(-1)
    return (weight @ v).transpose(1, 2).flatten(2)


def vision(state: State, pixels: Tensor) -> Tensor:
    """timm's ViT: patches, class token first, pre-norm blocks with a joint qkv, a last norm; eps 1e-6."""
    p = "blip.visual_encoder"
    weight, bias = state[f"{p}.patch_embed.proj.weight"], state[f"{p}.patch_embed.proj.bias"]
    x = functional.conv2d(pixels, weight, bias, stride=16).flatten(2).mT
    x = torch.cat([state[f"{p}.cls_token"].expand(len(x), -1, -1), x], 1) + state[f"{p}.pos_embed"]
    for i in range(2):
        b = f"{p}.blocks.{i}"
        q, k, v = linear(state, f"{b}.attn.qkv", norm(state, f"{b}.norm1", x, 1e-6)).chunk(3, -1)
        x = x + linear(state, f"{b}.attn.proj", attend(q, k, v, q.shape[-1] // 64))
        inner = functional.gelu(linear(state, f"{b}.mlp.fc1", norm(state, f"{b}.norm2", x, 1e-6)))
        x = x + linear(state, f"{b}.mlp.fc2", inner)
    return norm(state, f"{p}.norm", x, 1e-6)


def text(state: State, ids: Tensor, mask: Tensor, image: Tensor) -> Tensor:
    """BERT, post-norm, each layer attending to the image after itself; both directions; 3 heads, eps 1e-12."""
    p = "blip.text_encoder"
    e = f"{p}.embeddings"
    x = state[f"{e}.word_embeddings.weight"][ids] + state[f"{e}.position_embeddings.weight"][: ids.shape[1]]
    x = norm(state, f"{e}.LayerNorm", x, 1e-12)
    hidden = (1 - mask.to(x))[:, None, None] * -1e9
    for i in range(2):
        layer = f"{p}.encoder.layer.{i}"
        for kind, source, bias in [("attention", None, hidden), ("crossattention", image, 0.0)]:
            other = x if source is None else source
            q = linear(state, f"{layer}.{kind}.self.query", x)
            k, v = (linear(state, f"{layer}.{kind}.self.{name}", other) for name in ("key", "value"))
            out = linear(state, f"{layer}.{kind}.output.dense", attend(q, k, v, 3, bias))
            x = norm(state, f"{layer}.{kind}.output.LayerNorm", out + x, 1e-12)
        inner = functional.gelu(linear(state, f"{layer}.intermediate.dense", x))
        out = linear(state, f"{layer}.output.dense", inner)
        x = norm(state, f"{layer}.output.LayerNorm", out + x, 1e-12)
    return x[:, 0]


def original(state: State, pixels: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """The published score `(B,)`."""
    state = {name: value.double() if value.is_floating_point() else value for name, value in state.items()}
    x = text(state, ids, mask, vision(state, pixels.double()))
    for index in (0, 2, 4, 6, 7):
        x = linear(state, f"mlp.layers.{index}", x)
    return ((x - 0.16717362830052426) / 1.0333394966054072).squeeze(-1)


@pytest.fixture(scope="module")
def model(published: dict[str, dict[str, Any]]) -> imagereward.ImageRewardReward:
    made = rewards.get("imagereward", **published["imagereward"])
    assert isinstance(made, imagereward.ImageRewardReward)
    return made.to(dtype=torch.float64)


def test_the_score_is_the_originals(model: imagereward.ImageRewardReward, published: dict[str, dict[str, Any]]) -> None:
    images = torch.rand(3, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    prompts = ["a red cat", "two blue dog left of a cube", ""]
    known = {
        word: i for i, word in enumerate("a an the photo of red green blue cat dog cube left right and two".split(), 4)
    }
    ids = torch.zeros(3, 35, dtype=torch.long)
    for row, prompt in zip(ids, prompts, strict=True):
        tokens = [2, *[known[word] for word in prompt.split()], 3]
        row[: len(tokens)] = torch.tensor(tokens)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073], dtype=torch.float64)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711], dtype=torch.float64)
    pixels = (images - mean[:, None, None]) / std[:, None, None]
    state = torch.load(Path(published["imagereward"]["path"]) / "ImageReward.pt", weights_only=True)
    expected = original(state, pixels, ids, (ids > 0).long())
    found = model(images, prompts, [{}] * 3)
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-9)
    assert expected.std() > 1e-3


def test_the_constants_of_the_published_scale() -> None:
    assert imagereward.standardise(torch.zeros(1, dtype=torch.float64)).item() == pytest.approx(-0.161780, abs=5e-7)
    zero = torch.tensor([0.16717362830052426], dtype=torch.float64)
    assert imagereward.standardise(zero).item() == pytest.approx(0.0, abs=1e-15)


def test_projections_of_blips_training_may_stand_in_the_file(published: dict[str, dict[str, Any]]) -> None:
    state = torch.load(Path(published["imagereward"]["path"]) / "ImageReward.pt", weights_only=True)
    assert {"blip.vision_proj.weight", "blip.text_proj.bias", "blip.text_encoder.embeddings.position_ids"} <= set(state)
    renamed = blip.rename(state, "file")
    assert len(renamed) == len(state) and not [name for name in renamed if "visual_encoder" in name]


def test_the_sizes_are_read_off_the_file(published: dict[str, dict[str, Any]]) -> None:
    state = torch.load(Path(published["imagereward"]["path"]) / "ImageReward.pt", weights_only=True)
    config = blip.vision_config(blip.rename(state, "file"))
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (128, 2, 2)
    assert (config.intermediate_size, config.image_size, config.patch_size) == (256, 32, 16)
    large = {"embeddings.patch_embedding.weight": (1024, 3, 16, 16), "embeddings.position_embedding": (1, 197, 1024)}
    large |= {f"encoder.layers.{i}.mlp.fc1.weight": (4096, 1024) for i in range(24)}
    config = blip.vision_config(
        {f"blip.vision_model.{name}": torch.empty(shape, device="meta") for name, shape in large.items()}
    )
    assert (config.num_hidden_layers, config.num_attention_heads, config.image_size) == (24, 16, 224)
    assert config.layer_norm_eps == 1e-6


def test_another_file_is_refused(published: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    source = Path(published["imagereward"]["path"])
    tokenizer = published["imagereward"]["tokenizer"]
    (tmp_path / "med_config.json").write_text((source / "med_config.json").read_text())
    torch.save({"weight": torch.ones(1)}, tmp_path / "ImageReward.pt")
    with pytest.raises(ValueError, match="lacks blip.vision_model.embeddings.patch_embedding.weight"):
        rewards.get("imagereward", path=tmp_path, tokenizer=tokenizer)
    (tmp_path / "ImageReward.pt").write_bytes((source / "ImageReward.pt").read_bytes())
    content = json.loads((source / "med_config.json").read_text())
    (tmp_path / "med_config.json").write_text(json.dumps({**content, "hidden_size": 12}))
    with pytest.raises(ValueError, match="other shapes .*instead of"):
        rewards.get("imagereward", path=tmp_path, tokenizer=tokenizer)
    for text_of, message in [("{}", "lacks vocab_size, hidden_size"), ("[]", "lacks"), ("{", "is no JSON")]:
        (tmp_path / "med_config.json").write_text(text_of)
        with pytest.raises(ValueError, match=message):
            rewards.get("imagereward", path=tmp_path, tokenizer=tokenizer)


def test_a_missing_configuration_or_tokenizer_is_named(
    published: dict[str, dict[str, Any]], tmp_path: Path, no_hub: Path
) -> None:
    source = Path(published["imagereward"]["path"])
    (tmp_path / "ImageReward.pt").write_bytes((source / "ImageReward.pt").read_bytes())
    with pytest.raises(ValueError, match="THUDM/ImageReward med_config.json"):
        rewards.get("imagereward", path=tmp_path)
    with pytest.raises(ValueError, match="google-bert/bert-base-uncased tokenizer.json.*tokenizer=/path/to"):
        rewards.get("imagereward", path=source)
