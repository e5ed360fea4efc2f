"""Layouts: packing and its inverse, position ids, levels, channel statistics."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from diffalign.models.layout import channel_statistics, grid_ids, linear_sigmas, pack, unpack


def test_packing_keeps_every_number_in_its_place():
    x = torch.arange(2 * 3 * 4 * 6).reshape(2, 3, 4, 6)
    tokens = pack(x)
    assert tokens.shape == (2, 6, 12) and torch.equal(unpack(tokens, (3, 4, 6)), x)
    row, column, channel = 1, 2, 1  # token (1, 2) is the square of rows 2-3 and columns 4-5, channel slowest
    token = tokens[0, row * 3 + column].reshape(3, 2, 2)
    assert torch.equal(token[channel], x[0, channel, 2:4, 4:6])


def test_ids_count_rows_and_columns():
    ids = grid_ids(2, 3, first=1.0)
    assert ids.shape == (6, 3) and ids[4].tolist() == [1, 1, 1] and ids[-1].tolist() == [1, 1, 2]


@pytest.mark.parametrize("n", [1, 2, 7])
def test_levels_run_from_one_to_one_nth(n):
    sigmas = linear_sigmas(n)
    assert len(sigmas) == n and sigmas[0] == 1 and sigmas[-1] == pytest.approx(1 / n)


def test_statistics_broadcast_over_any_rank_and_default_to_the_unit():
    vae = SimpleNamespace(config={"latents_mean": [1.0, 2.0], "latents_std": [3.0, 4.0]})
    mean, std = channel_statistics(vae, torch.zeros(1, 2, 5, 6, 7))
    assert mean.shape == (1, 2, 1, 1, 1) and std.flatten().tolist() == [3, 4]
    mean, std = channel_statistics(SimpleNamespace(config={}), torch.zeros(1, 2, 5, 6))
    assert float(mean) == 0 and float(std) == 1
