from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from diffalign.rewards import hub, weights

REPO, FILE = "somebody/some-reward", "model.safetensors"


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache and the hub's own offline switch."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def lay_in_cache(hub: Path, repo: str, file: str) -> Path:
    """The hub's cache layout with one file of one revision."""
    folder = hub / f"models--{repo.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    path = folder / "snapshots" / "abc" / file
    path.parent.mkdir(parents=True)
    save_file({"weight": torch.ones(1)}, path)
    return path


def test_the_cache_is_found_without_network(offline: Path) -> None:
    assert weights.absent([(REPO, FILE)]) == [(REPO, FILE)]
    path = lay_in_cache(offline, REPO, FILE)
    assert weights.locate(REPO, FILE) == path and weights.cached(REPO, FILE) == path
    assert weights.absent([(REPO, FILE), (REPO, "other.bin")]) == [(REPO, "other.bin")]


def test_a_local_copy_is_a_file_or_its_folder(tmp_path: Path) -> None:
    save_file({"weight": torch.ones(1)}, tmp_path / FILE)
    assert weights.locate(REPO, FILE, tmp_path) == weights.locate(REPO, FILE, str(tmp_path / FILE)) == tmp_path / FILE


def test_missing_weights_name_hub_id_file_place_and_remedy(offline: Path) -> None:
    with pytest.raises(weights.MissingWeights) as caught:
        weights.locate(REPO, FILE, argument="head")
    for said in (REPO, FILE, str(offline), f"hf download {REPO} {FILE}", "head=/path/to/"):
        assert said in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_a_wrong_local_path_is_told_with_the_file_looked_for(tmp_path: Path) -> None:
    with pytest.raises(weights.MissingWeights, match=f"no file {tmp_path / FILE}.*path=/path/to"):
        weights.locate(REPO, FILE, tmp_path)


def test_what_is_not_on_the_hub_is_never_asked_for() -> None:
    with pytest.raises(weights.MissingWeights, match="https://github.com/a/b, or point at .*path=/path/to/head.pth"):
        weights.locate("github:a/b", "head.pth")
    assert weights.absent([("github:a/b", "head.pth")]) == [("github:a/b", "head.pth")]


def test_the_hub_is_asked_with_a_timeout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    asked: dict[str, Any] = {}

    def fake(repo: str, file: str, **options: Any) -> str:
        asked.update(options, repo=repo, file=file)
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fake)
    assert weights.locate(REPO, FILE) == tmp_path / FILE
    assert asked == {"repo": REPO, "file": FILE, "etag_timeout": hub.TIMEOUT} and 0 < hub.TIMEOUT <= 30


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth", "a.pt"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_published_formats_are_read(tmp_path: Path, name: str, wrapped: bool) -> None:
    state = {"w": torch.arange(3.0), "b": torch.ones(2)}
    if name.endswith(".safetensors"):
        save_file(state, tmp_path / name)
    else:
        torch.save({"epoch": 3, "state_dict": state} if wrapped else state, tmp_path / name)
    found = weights.read(tmp_path / name)
    assert found.keys() == state.keys() and all(torch.equal(found[key], state[key]) for key in state)


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("code ran",))


def test_a_checkpoint_with_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.pth").write_bytes(pickle.dumps(Payload(), protocol=2))
    torch.save({"state_dict": Payload()}, tmp_path / "b.pth")
    torch.save(nn.Linear(1, 1), tmp_path / "c.pth")
    for name in ("a.pth", "b.pth", "c.pth"):
        with pytest.raises(ValueError, match="more than tensors"):
            weights.read(tmp_path / name)
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt"])
def test_a_damaged_file_is_told(tmp_path: Path, name: str) -> None:
    torch.save({"w": torch.rand(400)}, tmp_path / "a.pt")
    save_file({"w": torch.rand(400)}, tmp_path / "a.safetensors")
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match="damaged"):
        weights.read(path)


def test_other_content_is_refused(tmp_path: Path) -> None:
    torch.save([torch.ones(1)], tmp_path / "a.pt")
    with pytest.raises(ValueError, match="no dictionary of tensors"):
        weights.read(tmp_path / "a.pt")


def test_a_fitting_state_is_copied_into_the_dtype_of_the_module() -> None:
    module, state = nn.Linear(2, 1).half(), nn.Linear(2, 1).state_dict()
    weights.load_strict(module, {**state, "position_ids": torch.ones(1)}, "file", ignore=["^position_ids$"])
    assert torch.equal(module.weight, state["weight"].half()) and module.weight.dtype == torch.float16


def test_differences_are_listed_and_nothing_is_copied() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    before = module[0].weight.clone()
    state = {"0.weight": torch.ones(2, 2), "1.weight": torch.ones(1, 3)} | {f"x.{i}": torch.ones(1) for i in range(6)}
    with pytest.raises(ValueError) as caught:
        weights.load_strict(module, state, "reward.pt")
    text = str(caught.value)
    assert "reward.pt" in text and "lacks 0.bias, 1.bias;" in text
    assert "has besides x.0, x.1, x.2, x.3 (and 2 more)" in text
    assert "other shapes 0.weight (2, 2) instead of (3, 2)" in text
    assert torch.equal(module[0].weight, before)


@pytest.fixture
def clip_folder(tmp_path: Path) -> Path:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4
    )
    CLIPVisionModel(config).save_pretrained(tmp_path / "clip")
    return tmp_path / "clip"


def test_a_model_of_transformers_is_loaded_frozen(clip_folder: Path) -> None:
    from transformers import CLIPVisionModel

    model = weights.load_model(CLIPVisionModel, clip_folder)
    assert not model.training and not any(p.requires_grad for p in model.parameters())


def test_transformers_may_not_fill_in_random_numbers(clip_folder: Path) -> None:
    from safetensors.torch import load_file
    from transformers import CLIPVisionModel

    state = load_file(clip_folder / FILE)
    lost = sorted(state)[0]
    save_file(
        {k: v for k, v in state.items() if k != lost} | {"extra": torch.ones(1)}, clip_folder / FILE, {"format": "pt"}
    )
    with pytest.raises(ValueError, match="is not the checkpoint .* lacks .*; has besides extra"):
        weights.load_model(CLIPVisionModel, clip_folder)
    save_file({**state, lost: torch.ones(3)}, clip_folder / FILE, {"format": "pt"})
    with pytest.raises(ValueError, match=r"other shapes .* \(3,\) instead of"):
        weights.load_model(CLIPVisionModel, clip_folder)


def test_a_model_that_is_nowhere_is_told_as_missing(tmp_path: Path) -> None:
    from transformers import CLIPVisionModel

    with pytest.raises(weights.MissingWeights, match=f"{REPO} {FILE} is not in the hub cache .*clip=/path/to"):
        weights.load_model(CLIPVisionModel, REPO, argument="clip")
    (tmp_path / "empty").mkdir()
    with pytest.raises(weights.MissingWeights, match="empty"):
        weights.load_model(CLIPVisionModel, tmp_path / "empty")
