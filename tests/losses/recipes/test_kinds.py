"""A kind fixes the leading arguments of its recipes."""

from __future__ import annotations

import pytest
from torch import Tensor

from diffalign.losses.recipes import kinds


def pair(r_w: Tensor, r_l: Tensor, scale: float, *, beta: float, flip: float, mask: Tensor | None = None) -> Tensor:
    return beta * flip * scale * (r_w - r_l)


@pytest.mark.parametrize(
    ("kind", "function"),
    [
        ("policy", lambda log_ratio, advantage, *, mask=None: None),
        ("policy", lambda log_ratio, adv, own, *, mask=None: None),
        ("policy", lambda log_ratio, adv, *, eps=0.2: None),
        ("pair", lambda r_w, logp_l: None),
        ("pair", lambda r_l, r_w: None),
        ("unpaired", lambda log_ratio, liked: None),
        ("advantage", lambda log_ratio: None),
        ("sft", lambda log_prob: None),
    ],
)
def test_a_signature_must_fit_its_kind(kind: str, function) -> None:
    with pytest.raises(ValueError, match=f"registered as {kind}, called with"):
        kinds.check_kind(function, kind)


@pytest.mark.parametrize(
    ("kind", "function"),
    [
        ("pair", pair),
        ("pair", lambda wins_1, wins_2: None),
        ("policy", lambda log_ratio, adv, *, eps=0.2, mask=None: None),
        ("sft", lambda logp, *, mask=None: None),
    ],
)
def test_a_signature_that_fits_is_accepted(kind: str, function) -> None:
    kinds.check_kind(function, kind)
    with pytest.raises(ValueError, match="unknown kind 'pear'"):
        kinds.check_kind(function, "pear")


def test_arguments_by_role() -> None:
    assert kinds.positional(pair) == ["r_w", "r_l", "scale"]
    assert kinds.required(pair, ["beta"]) == ["flip"]
    assert kinds.tensors(pair, ["r_w", "scale", "mask"]) == ["r_w", "mask"]
