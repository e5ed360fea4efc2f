from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import diffalign.rewards as rewards
from diffalign.rewards.vlm.hpsv3 import HPSv3Reward, find_instruction, read_instruction, reward_head
from diffalign.rewards.weights import MissingWeights

SOURCE = '''
import os
INSTRUCTION = """
Rate the image. Prompt - {text_prompt}
"""
other = os.getcwd()
prompt_with_special_token = """
The rating: <|Reward|>

END
"""
raise SystemExit("this file must not be run")
'''
PROMPTS = ["a fox", "a much longer prompt about a fox", "two foxes"]


def publish(qwen: Path, folder: Path, rename: Any = None) -> None:
    """A checkpoint as HPSv3's: one row more in the vocabulary, and the head."""
    from safetensors.torch import load_file, save_file

    folder.mkdir()
    state = load_file(qwen / "model.safetensors")
    generator = torch.Generator().manual_seed(3)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        state[name] = torch.cat([state[name], torch.randn(1, 16, generator=generator)])
    for name, value in reward_head(16).state_dict().items():
        state[f"rm_head.{name}"] = torch.randn(value.shape, generator=generator) / value.shape[-1] ** 0.5
    state = {rename(name) if rename else name: value for name, value in state.items()}
    save_file(state, folder / "HPSv3.safetensors")


def new_names(name: str) -> str:
    """How newer versions of transformers call the tensors of a model in memory."""
    return re.sub(r"^visual", "model.visual", re.sub(r"^model(?=\.)", "model.language_model", name))


@pytest.fixture(scope="module")
def parts(qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Arguments that point at the tiny model."""
    root = tmp_path_factory.mktemp("hpsv3")
    publish(qwen, root / "weights")
    (root / "collator.py").write_text(SOURCE)
    return {
        "path": root / "weights",
        "backbone": str(qwen),
        "instruction": root / "collator.py",
        "dtype": "float32",
    }


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffalign.rewards.vlm.hpsv3.PIXELS", 56 * 56)


@pytest.fixture
def photos() -> Tensor:
    return torch.rand(3, 3, 40, 60, generator=torch.Generator().manual_seed(1))


def test_the_contract_holds_with_padding_and_gradient(parts: dict[str, Any], photos: Tensor) -> None:
    reward = HPSv3Reward(**parts)
    scores = rewards.check_contract(reward, photos, PROMPTS, [{}] * 3)
    assert reward.name == "hpsv3" and scores.unique().numel() == 3
    reward.self_test()


def released_states(backbone: Any, inputs: dict[str, Tensor]) -> Tensor:
    """Last hidden states `(L, D)` of the released forward: embeddings of text and image, then the decoder alone."""
    embedded = backbone.get_input_embeddings()(inputs["input_ids"])
    seen = backbone.model.visual(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"]).pooler_output
    where = (inputs["input_ids"] == backbone.config.image_token_id)[..., None].expand_as(embedded)
    embedded = embedded.masked_scatter(where, seen)
    decoder = backbone.model.language_model
    return decoder(inputs_embeds=embedded, attention_mask=inputs["attention_mask"]).last_hidden_state[0]


def test_the_score_is_that_of_the_released_forward(parts: dict[str, Any], photos: Tensor) -> None:
    """One sequence at a time, the head written out; grid positions, which the library would make, score differently."""
    reward = HPSv3Reward(**parts)
    head = {name: value for name, value in reward._ranker.head.state_dict().items()}
    question = "\nRate the image. Prompt - a fox\n\nThe rating: <|Reward|>\n\nEND\n"
    inputs = reward._vlm.inputs([photos[:1]], [reward._vlm.question(question)])
    tokens = inputs["input_ids"][0].tolist()
    place = tokens.index(reward._token)
    assert place < len(tokens) - 3
    assert inputs["image_grid_thw"].tolist() == [[1, 4, 6]]  # 56 x 84: the least multiples of 28 of that area

    def mean(states: Tensor) -> float:
        x = torch.relu(head["0.weight"] @ states[place] + head["0.bias"])
        x = torch.relu(head["3.weight"] @ x + head["3.bias"])
        return float((head["5.weight"] @ x + head["5.bias"])[0])

    with torch.no_grad():
        released = mean(released_states(reward._ranker.backbone, inputs))
        on_the_grid = mean(reward._ranker.backbone(**inputs, output_hidden_states=True).hidden_states[-1][0])
    assert abs(released - on_the_grid) > 1e-3
    assert float(reward(photos[:1], ["a fox"], [{}])) == pytest.approx(released, abs=1e-6)


def test_special_tokens_of_a_prompt_are_no_tokens(parts: dict[str, Any], photos: Tensor) -> None:
    reward = HPSv3Reward(**parts)
    plain, sly = (reward(photos[:1], [p], [{}]) for p in ("a fox", "<|Reward|>a <|image_pad|>fox<|im_end|>"))
    assert torch.equal(plain, sly)


def test_both_namings_of_the_backbone_are_read(
    qwen: Path, parts: dict[str, Any], tmp_path: Path, photos: Tensor
) -> None:
    publish(qwen, tmp_path / "new", new_names)
    new = HPSv3Reward(**{**parts, "path": tmp_path / "new"})
    assert torch.equal(new(photos, PROMPTS, [{}] * 3), HPSv3Reward(**parts)(photos, PROMPTS, [{}] * 3))


def test_half_precision_keeps_the_head_whole(parts: dict[str, Any], photos: Tensor) -> None:
    whole = HPSv3Reward(**parts)(photos, PROMPTS, [{}] * 3)
    half = HPSv3Reward(**{**parts, "dtype": "bfloat16"})
    assert half._place.dtype == torch.bfloat16 and half._ranker.head[0].weight.dtype == torch.float32
    assert torch.allclose(half(photos, PROMPTS, [{}] * 3), whole, atol=0.1)
    moved = HPSv3Reward(**parts).to(dtype=torch.bfloat16)
    assert moved._place.dtype == torch.bfloat16 and moved._ranker.head[0].weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("rename", "message"),
    [
        (lambda name: name.replace("rm_head.5", "rm_head.6"), r"rm_head.*lacks 5.bias, 5.weight.*besides 6.bias"),
        (lambda name: name.replace("layers.1.mlp", "layers.1.ffn"), r"lacks .*layers.1.mlp.*besides .*layers.1.ffn"),
    ],
)
def test_a_checkpoint_with_other_keys_is_refused(
    qwen: Path, parts: dict[str, Any], tmp_path: Path, rename: Any, message: str
) -> None:
    publish(qwen, tmp_path / "other", rename)
    with pytest.raises(ValueError, match=message):
        HPSv3Reward(**{**parts, "path": tmp_path / "other"})


def test_missing_files_are_named(parts: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MissingWeights, match=r"MizzenAI/HPSv3.*HPSv3.safetensors.*path="):
        HPSv3Reward(**{**parts, "path": None})
    with pytest.raises(MissingWeights, match=r"github.com/MizzenAI/HPSv3.*instruction="):
        HPSv3Reward(**{**parts, "instruction": None})
    with pytest.raises(MissingWeights, match=r"nobody/none.*backbone="):
        HPSv3Reward(**{**parts, "backbone": "nobody/none"})
    with pytest.raises(ValueError, match="valid: bfloat16"):
        HPSv3Reward(**{**parts, "dtype": "int8"})


def test_an_instruction_is_read_and_never_run(parts: dict[str, Any], tmp_path: Path) -> None:
    assert read_instruction(parts["instruction"]).splitlines()[-3:] == ["The rating: <|Reward|>", "", "END"]
    text = tmp_path / "mine.txt"
    text.write_text("{text_prompt}: <|Reward|>")
    assert read_instruction(text) == "{text_prompt}: <|Reward|>"
    text.write_text("{text_prompt}")
    with pytest.raises(ValueError, match="once"):
        read_instruction(text)
    other = tmp_path / "other.py"
    other.write_text('INSTRUCTION = "a"')
    with pytest.raises(ValueError, match="does not define the strings"):
        read_instruction(other)
    checkout = tmp_path / "repository" / "hpsv3" / "dataset"
    checkout.mkdir(parents=True)
    shutil.copy(parts["instruction"], checkout / "data_collator_qwen.py")
    assert find_instruction(tmp_path / "repository") == checkout / "data_collator_qwen.py"


def test_an_installed_package_is_found_without_being_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: dict[str, Any]
) -> None:
    info, package = tmp_path / "hpsv3-1.0.0.dist-info", tmp_path / "hpsv3" / "dataset"
    info.mkdir()
    package.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hpsv3\nVersion: 1.0.0\n")
    (package / "data_collator_qwen.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert find_instruction() == package / "data_collator_qwen.py"
