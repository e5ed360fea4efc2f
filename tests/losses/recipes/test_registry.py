"""Recipes are found by name, keep their settings, and a wrong name says what is near."""

from __future__ import annotations

import pytest

from diffalign.citations import systems
from diffalign.losses import recipes


def test_every_recipe_says_what_it_rests_on() -> None:
    lost = [name for name in recipes.names() if not systems()[name].confidence]
    assert lost == []


def test_every_recipe_is_claimed_by_the_ledger() -> None:
    assert [name for name in recipes.names() if systems()[name].status not in ("works", "partial")] == []


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="no objective is named 'no-such-method'"):
        recipes.get("no-such-method")
    with pytest.raises(ValueError, match="'simmpo'; did you mean `simpo`"):
        recipes.get("simmpo")


def test_a_name_is_taken_once_and_stands_in_the_ledger() -> None:
    with pytest.raises(ValueError, match="not in systems.csv"):
        recipes.recipe("no-such-method")
