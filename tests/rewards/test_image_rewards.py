"""What every image reward has to do, on small random models saved as the true ones are published."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import diffalign.rewards as rewards
from diffalign.rewards import registry
from diffalign.rewards.weights import MissingWeights

Published = dict[str, dict[str, Any]]
NAMES = ["aesthetic", "aesthetic_v1", "clip", "pickscore", "hpsv2", "hpsv2.1", "imagereward"]
PROMPTS = ["a red cat", "a blue dog", "two green cube and a cat"]
RECORDS: list[dict[str, Any]] = [{}, {}, {}]
SIDE = {name: 32 if name == "imagereward" else 28 for name in NAMES}


def pictures(size: int = 40) -> Tensor:
    """Smooth random images `(3, 3, size, size)`, values in (0.3, 0.7): no overshoot meets a clamp."""
    noise = torch.rand(3, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    return 0.3 + 0.4 * torch.nn.functional.interpolate(noise, (size, size), mode="bilinear")


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def made(published: Published) -> dict[str, rewards.Reward]:
    """Each reward, made once; a test that changes its precision brings it back."""
    return {name: rewards.get(name, **published[name]) for name in NAMES}


@pytest.fixture
def reward(name: str, made: dict[str, rewards.Reward]) -> rewards.Reward:
    return made[name]


def test_the_contract_holds(reward: rewards.Reward, name: str) -> None:
    scores = rewards.check_contract(reward, pictures(), PROMPTS, RECORDS)
    assert scores.unique().numel() == 3
    assert reward.differentiable and reward.scope == "pointwise"
    assert reward.name.startswith(name)
    assert reward.self_test() is None


def test_files_and_licence_are_known_without_a_model(name: str) -> None:
    (entry,) = [entry for entry in rewards.entries() if entry.name == name]
    made = registry.declaration(entry)
    assert made.licence and made.weights
    assert made.needs == (set() if name.startswith("aesthetic") else {"prompt"})


def test_the_gradient_is_that_of_finite_differences(
    reward: rewards.Reward, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffalign.rewards.images.as_bytes", lambda x: x)  # steps that finite differences would see
    reward.to(dtype=torch.float64)
    request.addfinalizer(lambda: reward.to(dtype=torch.float32))
    images = pictures().double().requires_grad_()
    direction = torch.randn(images.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    scores = reward(images, PROMPTS, RECORDS)
    assert scores.dtype == torch.float64
    for index in range(3):
        (gradient,) = torch.autograd.grad(scores[index], images, retain_graph=True)
        assert not gradient[[other for other in range(3) if other != index]].any()
        step = 1e-4
        with torch.no_grad():
            ahead, behind = (reward(images + sign * step * direction, PROMPTS, RECORDS)[index] for sign in (1, -1))
        expected = (ahead - behind) / (2 * step)
        assert (gradient * direction).sum().item() == pytest.approx(expected.item(), rel=1e-4)
        assert abs(expected) > 1e-6


@pytest.mark.parametrize("name", ["aesthetic", "clip", "imagereward"])
def test_a_score_does_not_depend_on_how_images_are_batched(
    name: str, published: Published, made: dict[str, rewards.Reward]
) -> None:
    whole = made[name](pictures(), PROMPTS, RECORDS)
    for size in (1, 2):
        parted = rewards.get(name, **published[name], batch_size=size)(pictures(), PROMPTS, RECORDS)
        assert torch.allclose(parted, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["aesthetic", "clip", "imagereward"])
def test_recomputing_activations_changes_no_gradient(name: str, published: Published) -> None:
    found = []
    for checkpoint in (False, True):
        images = pictures().requires_grad_()
        reward = rewards.get(name, **published[name], checkpoint=checkpoint, batch_size=2)
        reward(images, PROMPTS, RECORDS).sum().backward()
        found.append(images.grad)
    assert torch.allclose(found[0], found[1], rtol=1e-5, atol=1e-8) and found[0].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_close(name: str, published: Published, dtype: torch.dtype) -> None:
    reward = rewards.get(name, **published[name])
    full = reward(pictures(), PROMPTS, RECORDS)
    half = reward.to(dtype=dtype)(pictures(), PROMPTS, RECORDS)
    spread = (reward.range[1] - reward.range[0]) / 2 if reward.range else 1.0
    assert half.dtype == torch.float32
    assert (half - full).abs().max() < (0.05 if dtype == torch.bfloat16 else 0.01) * spread
    assert torch.allclose(reward(pictures().to(dtype), PROMPTS, RECORDS), half, atol=0.05 * spread)


def test_the_precision_around_it_plays_no_part(reward: rewards.Reward) -> None:
    outside = reward(pictures(), PROMPTS, RECORDS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(reward(pictures(), PROMPTS, RECORDS), outside)


def test_prompts_remembered_in_inference_mode_serve_a_gradient_later(reward: rewards.Reward) -> None:
    with torch.inference_mode():
        before = reward(pictures(), PROMPTS, RECORDS)
    images = pictures().requires_grad_()
    after = reward(images, PROMPTS, RECORDS)
    after.sum().backward()
    assert torch.allclose(after, before, rtol=1e-5, atol=1e-6) and images.grad is not None


def test_the_weights_get_no_gradient(reward: rewards.Reward) -> None:
    images = pictures().requires_grad_()
    reward(images, PROMPTS, RECORDS).sum().backward()
    module = reward._module  # type: ignore[attr-defined]
    assert all(value.grad is None and not value.requires_grad for value in module.parameters())
    assert not any(part.training for part in module.modules())


def test_prompts_matter_where_they_are_needed(reward: rewards.Reward) -> None:
    one, other = (reward(pictures(), [prompt] * 3, RECORDS) for prompt in PROMPTS[:2])
    assert torch.equal(one, other) == ("prompt" not in reward.needs)


def photo(height: int, width: int) -> Image.Image:
    """An 8-bit picture with smooth regions, texture and an edge."""
    y, x = np.meshgrid(np.linspace(0, 1, height), np.linspace(0, 1, width), indexing="ij")
    waves = np.stack([np.sin(9 * x + 3 * y), np.cos(17 * y * x), np.sin(5 * (x - y))], -1)
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, waves.shape)
    edge = ((x - 0.5) ** 2 + (y - 0.4) ** 2 < 0.05)[..., None]
    return Image.fromarray(((0.5 + 0.2 * waves + noise + 0.1 * edge).clip(0, 1) * 255).round().astype(np.uint8))


def tensor(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None].float() / 255


def by_pil(picture: Image.Image, side: int, padded: bool) -> Image.Image:
    """The published transform up to the normalisation, on 8 bits; a wide picture."""
    width, height = picture.size
    if padded:
        square = Image.new("RGB", (side, side))
        low = round(height * side / width)
        square.paste(picture.resize((side, low), Image.Resampling.BICUBIC), (0, (side - low) // 2))
        return square
    wide = picture.resize((int(side * width / height), side), Image.Resampling.BICUBIC)
    left = round((wide.size[0] - side) / 2)
    return wide.crop((left, 0, left + side, side))


def test_pil_and_tensors_agree_on_a_photo(reward: rewards.Reward, name: str) -> None:
    picture = photo(300, 452)
    direct = reward(tensor(picture), PROMPTS[:1], RECORDS[:1])
    expected = reward(tensor(by_pil(picture, SIDE[name], name.startswith("hps"))), PROMPTS[:1], RECORDS[:1])
    spread = reward.range[1] - reward.range[0] if reward.range else 4.0
    assert (direct - expected).abs() < 1e-3 * spread
    assert (direct - reward(tensor(picture.transpose(Image.Transpose.ROTATE_90)), PROMPTS[:1], RECORDS[:1])).abs() > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: (x * 255).byte(), "8-bit images carry no gradient"),
        (lambda x: x[:, :1], "B, 3, H, W"),
        (lambda x: x[:0], "the batch is empty"),
        (lambda x: x * 2 - 1, "decoded latents"),
    ],
)
def test_images_of_another_kind_are_refused(
    made: dict[str, rewards.Reward], change: Callable[[Tensor], Tensor], message: str
) -> None:
    images = change(pictures())
    for name in ("aesthetic_v1", "hpsv2"):
        with pytest.raises(ValueError, match=message):
            made[name](images, PROMPTS[: len(images)], RECORDS[: len(images)])


def test_prompts_come_one_for_each_image(published: Published, made: dict[str, rewards.Reward]) -> None:
    with pytest.raises(ValueError, match="3 images and 2 prompts"):
        made["clip"](pictures(), PROMPTS[:2], RECORDS[:2])
    with pytest.raises(ValueError, match="batch_size is at least 1"):
        rewards.get("clip", **published["clip"], batch_size=0)


LOOKED_FOR = {
    "aesthetic": ("camenduru/improved-aesthetic-predictor sac+logos+ava1-l14-linearMSE.pth", "head="),
    "aesthetic_v1": ("github:LAION-AI/aesthetic-predictor sa_0_4_vit_l_14_linear.pth", "head="),
    "clip": ("openai/clip-vit-large-patch14 model.safetensors", "model="),
    "pickscore": ("yuvalkirstain/PickScore_v1 model.safetensors", "path="),
    "hpsv2": ("xswu/HPSv2 HPS_v2_compressed.pt", "path="),
    "hpsv2.1": ("xswu/HPSv2 HPS_v2.1_compressed.pt", "path="),
    "imagereward": ("THUDM/ImageReward ImageReward.pt", "path="),
}


def test_missing_weights_are_told_with_file_and_remedy(name: str, no_hub: Path) -> None:
    with pytest.raises(MissingWeights) as caught:
        rewards.get(name)
    file, argument = LOOKED_FOR[name]
    assert file in str(caught.value) and f"{argument}/path/to" in str(caught.value)
    assert str(no_hub) in str(caught.value) or file.startswith("github:")


def lose_a_key(path: Path) -> str:
    """Renames one tensor of a checkpoint in place; returns the name that is gone."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file, save_file

        state = load_file(path)
        lost = next(key for key in sorted(state) if "norm" in key and key.startswith("vision"))
        state["renamed.tensor"] = state.pop(lost)
        save_file(state, path, {"format": "pt"})
        return lost
    content = torch.load(path, weights_only=True)
    state = content.get("state_dict", content)
    lost = next(key for key in sorted(state) if key.endswith("bias"))
    state["renamed.tensor"] = state.pop(lost)
    torch.save(content, path)
    return lost


FILES = {
    "aesthetic": ("head", "sac+logos+ava1-l14-linearMSE.pth"),
    "aesthetic_v1": ("head", "sa_0_4_vit_l_14_linear.pth"),
    "clip": ("model", "model.safetensors"),
    "pickscore": ("path", "model.safetensors"),
    "hpsv2": ("path", "HPS_v2_compressed.pt"),
    "hpsv2.1": ("path", "HPS_v2.1_compressed.pt"),
    "imagereward": ("path", "ImageReward.pt"),
}


def test_a_checkpoint_with_other_keys_is_refused_by_name(name: str, published: Published, tmp_path: Path) -> None:
    argument, file = FILES[name]
    copy = Path(shutil.copytree(published[name][argument], tmp_path / "copy"))
    lost = lose_a_key(copy / file)
    with pytest.raises(
        ValueError, match="is not the checkpoint of this model.*lacks .*has besides renamed.tensor"
    ) as caught:
        rewards.get(name, **{**published[name], argument: copy})
    assert (lost.split(".")[-2] if "." in lost else lost) in str(caught.value)


def test_long_prompts_are_cut_off_with_one_warning(
    name: str, published: Published, caplog: pytest.LogCaptureFixture
) -> None:
    reward = rewards.get(name, **published[name])
    if "prompt" not in reward.needs:
        pytest.skip("it does not read prompts")
    context = {"hpsv2": 77, "hpsv2.1": 77, "imagereward": 35}.get(name, 12)
    fits, over = " ".join(["cat"] * (context - 2)), " ".join(["cat"] * (context - 1))
    reward(pictures()[:1], [fits], [{}])
    assert not caplog.records
    at_limit = reward(pictures()[:1], [fits], [{}])
    cut = [reward(pictures()[:1], [over + " dog" * extra], [{}]) for extra in range(3)]
    assert all(torch.allclose(score, at_limit, rtol=1e-5) for score in cut)
    (record,) = caplog.records
    assert f"{context} tokens" in record.getMessage() and reward.name in record.getMessage()
