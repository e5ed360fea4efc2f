from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

import diffalign.rewards as rewards
from diffalign.rewards.functions.sets import statistics, vendi_score
from diffalign.rewards.set_rewards import FrechetReward, VendiReward, load_statistics, save_statistics
from diffalign.rewards.weights import MissingWeights


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a tiny DINOv2 in the published format."""
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    folder = tmp_path_factory.mktemp("models") / "tiny-dino"
    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14)
    Dinov2Model(config).save_pretrained(folder)
    processor = BitImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 28, "width": 28})
    processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def photos() -> Tensor:
    return torch.rand(5, 3, 32, 40, generator=torch.Generator().manual_seed(1))


def test_the_contract_holds_with_a_gradient(dino: str, photos: Tensor, tmp_path: Path) -> None:
    save_statistics(statistics(torch.randn(20, 16)), tmp_path / "s.safetensors")
    for reward in (VendiReward(dino), FrechetReward(str(tmp_path / "s.safetensors"), dino)):
        scores = rewards.check_contract(reward, photos, ["p"] * 5, [{}] * 5)
        assert reward.scope == "group" and scores.unique().numel() == 5
        reward.self_test()
    assert VendiReward(dino).name == "vendi_tiny-dino"


def test_features_are_those_of_the_class_token_by_pil(dino: str, photos: Tensor) -> None:
    from transformers import AutoImageProcessor, AutoModel

    pixels = [(photo * 255).round().byte().permute(1, 2, 0).numpy() for photo in photos]
    inputs = AutoImageProcessor.from_pretrained(dino)(images=[Image.fromarray(p) for p in pixels], return_tensors="pt")
    with torch.no_grad():
        expected = AutoModel.from_pretrained(dino)(**inputs).last_hidden_state[:, 0]
    assert torch.allclose(VendiReward(dino)._features(photos), expected, atol=5e-3)


def test_members_are_paid_what_the_group_loses_without_them(photos: Tensor) -> None:
    reward = VendiReward("pixels")
    group = photos.clone()
    group[1] = group[0]
    scores = reward(group, ["p"] * 5, [{}] * 5)
    features = reward._features(group)
    rest = vendi_score(features[[0, 1, 2, 4]])
    assert float(scores[3]) == pytest.approx(float(vendi_score(features) - rest), abs=1e-5)
    assert scores[0] == pytest.approx(float(scores[1]), abs=1e-5) and scores[0] < scores[2:].min()


def test_copies_earn_nothing_and_orthogonal_members_one_each() -> None:
    reward = VendiReward("pixels")
    copies = torch.rand(1, 3, 8, 8).expand(4, 3, 8, 8)
    assert reward(copies, ["p"] * 4, [{}] * 4).abs().max() < 1e-5
    apart = torch.full((3, 3, 8, 8), 0.5)
    for member in range(3):
        apart[member, member, 0, 0] = 1.0
    assert torch.allclose(reward(apart, ["p"] * 3, [{}] * 3), torch.ones(3), atol=1e-5)
    broadcast = VendiReward("pixels", credit="broadcast")
    assert broadcast.name == "vendi_pixels_broadcast"
    assert torch.allclose(broadcast(apart, ["p"] * 3, [{}] * 3), torch.full((3,), 3.0), atol=1e-5)


def test_groups_do_not_meet(photos: Tensor) -> None:
    reward = VendiReward("pixels")
    prompts = ["a", "b", "a", "b", "a"]
    together = reward(photos, prompts, [{}] * 5)
    assert torch.allclose(together[[1, 3]], reward(photos[[1, 3]], ["b"] * 2, [{}] * 2), atol=1e-6)
    with pytest.raises(ValueError, match="group of 1"):
        reward(photos, ["a", "a", "a", "a", "b"], [{}] * 5)


def test_a_group_that_is_the_reference_is_at_its_best(photos: Tensor, tmp_path: Path) -> None:
    for number, photo in enumerate(photos):
        Image.fromarray((photo * 255).round().byte().permute(1, 2, 0).numpy()).save(tmp_path / f"{number}.png")
    (tmp_path / "notes.txt").write_text("no image")
    reward = FrechetReward(str(tmp_path), "pixels", credit="broadcast")
    exact = ((photos * 255).round() / 255).clamp(0, 1)
    assert reward.name == "frechet_pixels_broadcast"
    assert reward(exact, ["p"] * 5, [{}] * 5).tolist() == pytest.approx([0.0] * 5, abs=1e-4)
    shifted = reward(exact * 0.5, ["p"] * 5, [{}] * 5)
    assert (shifted < -1).all()


def test_a_stranger_lowers_the_value_of_its_group(photos: Tensor, tmp_path: Path) -> None:
    reference = VendiReward("pixels")._features(torch.rand(40, 3, 32, 40))
    save_statistics(statistics(reference), tmp_path / "s.safetensors")
    group = photos.clone()
    group[2] = 1.0
    scores = FrechetReward(str(tmp_path / "s.safetensors"), "pixels")(group, ["p"] * 5, [{}] * 5)
    assert scores.argmin() == 2 and scores[2] < 0


def test_statistics_are_read_back(tmp_path: Path) -> None:
    made = statistics(torch.randn(7, 4))
    save_statistics(made, tmp_path / "s.safetensors")
    read = load_statistics(tmp_path / "s.safetensors", torch.nn.Identity())
    assert torch.equal(read.mean, made.mean) and torch.equal(read.covariance, made.covariance)


def test_wrong_references_and_names_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import save_file

    with pytest.raises(MissingWeights, match="no reference"):
        FrechetReward(str(tmp_path / "none"), "pixels")
    with pytest.raises(ValueError, match="no images"):
        FrechetReward(str(tmp_path), "pixels")
    save_file({"mu": torch.zeros(2)}, tmp_path / "s.safetensors")
    with pytest.raises(ValueError, match=r"holds \['mu'\]"):
        FrechetReward(str(tmp_path / "s.safetensors"), "pixels")
    with pytest.raises(ValueError, match="did you mean `broadcast`"):
        VendiReward("pixels", credit="broadcst")  # type: ignore[arg-type]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MissingWeights, match="nobody/none.*preprocessor_config.json.*features="):
        VendiReward("nobody/none")
    save_statistics(statistics(torch.randn(7, 4)), tmp_path / "other.safetensors")
    reward = FrechetReward(str(tmp_path / "other.safetensors"), "pixels")
    with pytest.raises(ValueError, match="against statistics"):
        reward(torch.rand(3, 3, 8, 8), ["p"] * 3, [{}] * 3)
