"""Every reward of diffalign's own that needs neither published weights nor a server nor a judge keeps the contract.

Those that do have tests of their own, on small random models and a small server.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import diffalign.rewards as rewards
from diffalign.rewards import registry
from diffalign.shapes import prompts, render_batch, sample_scene

OWN = [entry for entry in rewards.entries() if entry.distribution == "diffalign"]
DECLARED = {entry.name: registry.declaration(entry) for entry in OWN}
BUILT_IN = [
    name for name, made in DECLARED.items() if not (made.weights or made.environment or getattr(made, "roles", ()))
]


@pytest.fixture(scope="module")
def batch() -> tuple[Tensor, list[str], list[dict[str, Any]]]:
    """Eight rendered scenes, two of each of four prompts."""
    lines = [line for line in prompts("train")[::60][:4] for _ in range(2)]
    generator = torch.Generator().manual_seed(3)
    return render_batch([sample_scene(line, generator) for line in lines]), [line["prompt"] for line in lines], lines


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_self_test_passes(name: str) -> None:
    reward = rewards.get(name)
    assert reward.self_test() is None


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_contract_holds_on_scenes(name: str, batch: tuple[Tensor, list[str], list[dict[str, Any]]]) -> None:
    scores = rewards.check_contract(rewards.get(name), *batch)
    assert scores.shape == (8,) and scores.dtype == torch.float32 and scores.device == batch[0].device


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_broken_image_is_nan_and_spoils_no_other(
    name: str, batch: tuple[Tensor, list[str], list[dict[str, Any]]]
) -> None:
    images, texts, lines = batch
    broken = images.clone()
    broken[2, :, 5, 5] = torch.nan
    reward = {name: rewards.get(name)}
    with_it, without = (
        rewards.score(reward, broken, texts, lines)[name],
        rewards.score(reward, images, texts, lines)[name],
    )
    assert with_it[2].isnan()
    keep = [i for i in range(8) if i != 2]
    assert torch.equal(with_it[keep], without[keep])


@pytest.mark.parametrize("name", BUILT_IN)
def test_names_tell_variants_apart_and_gradients_are_not_promised(name: str) -> None:
    reward = rewards.get(name)
    assert not reward.differentiable
    assert len({rewards.get(other).name for other in BUILT_IN}) == len(BUILT_IN)
    assert reward.to("cpu") is reward


@pytest.mark.parametrize("entry", OWN, ids=[entry.name for entry in OWN])
def test_weights_come_with_their_licence_and_files(entry: rewards.Entry) -> None:
    made = registry.declaration(entry)
    assert bool(made.licence) == bool(made.weights)
    assert all("/" in hub_id and file for hub_id, file in made.weights)
