"""Recipes are found by name or alias, keep their settings, fit their kind, and a wrong name is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diffalign.citations import systems
from diffalign.losses import recipes
from diffalign.losses.recipes import registry


def policy_like(log_ratio: Tensor, adv: Tensor, *, mask: Tensor | None = None) -> Tensor:
    return log_ratio


def test_every_recipe_says_what_it_rests_on() -> None:
    assert [name for name in recipes.names() if not systems()[name].confidence] == []


def test_every_recipe_is_claimed_by_the_ledger() -> None:
    assert [name for name in recipes.names() if systems()[name].status not in ("works", "partial")] == []


@pytest.mark.parametrize("name", ["no-such-method", "simpo-2", ""])
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"no objective is named '{name}'"):
        recipes.get(name)


def test_a_typo_names_the_nearest_and_returns_none_of_them() -> None:
    with pytest.raises(ValueError, match="'simmpo'; did you mean `simpo`"):
        recipes.get("simmpo")


@pytest.mark.parametrize("spelling", ["SimPO", "sim_po", "SIMPO", "Sim PO"])
def test_case_and_separators_do_not_count(spelling: str) -> None:
    assert recipes.get(spelling).id == "simpo"


def test_an_id_must_stand_in_the_ledger_and_be_free() -> None:
    with pytest.raises(ValueError, match="not in systems.csv"):
        recipes.recipe("no-such-method", "pair")
    with pytest.raises(ValueError, match="two recipes are named 'DPO'"):
        recipes.recipe("DPO", "pair")
    with pytest.raises(ValueError, match="two recipes are named 'sim-po': simpo and ddpo-x"):
        recipes.recipe("ddpo-x", "pair", aliases=("sim-po",))


def test_an_unknown_kind_and_a_setting_without_argument_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    free = next(id for id, row in systems().items() if row.status == "planned")
    with pytest.raises(ValueError, match="unknown kind 'pairs'"):
        recipes.recipe(free, "pairs")(policy_like)
    with pytest.raises(ValueError, match=f"recipe '{free}': .*eps"):
        recipes.recipe(free, "policy", eps=0.2)(policy_like)
    with pytest.raises(ValueError, match="unknown kind 'pairs'; did you mean `pair`"):
        recipes.names("pairs")
    monkeypatch.setattr(registry, "_recipes", dict(registry._recipes))
    monkeypatch.setattr(registry, "_spellings", dict(registry._spellings))
    recipes.recipe(free, "policy", aliases=("an-alias",))(policy_like)
    assert recipes.get("An alias").function is policy_like and free in recipes.names("policy")


def test_kinds_part_the_recipes() -> None:
    each = [name for kind in recipes.KINDS for name in recipes.names(kind)]
    assert sorted(each) == recipes.names() and all(recipes.names(kind) for kind in recipes.KINDS)


def test_tensors_are_passed_by_name() -> None:
    have = {"r_w": torch.tensor([1.0]), "r_l": torch.tensor([0.0]), "logp_w": torch.tensor([-2.0])}
    assert recipes.get("dpo").apply(have, beta=0.5) == recipes.get("dpo")(have["r_w"], have["r_l"], beta=0.5)
    assert recipes.get("rpo-sft").apply(have) == recipes.get("rpo-sft")(*have.values())
    with pytest.raises(ValueError, match=r"simpo \(pair\) needs logp_l; given are r_w"):
        recipes.get("simpo").apply(have)
    with pytest.raises(ValueError, match="rdpo-robust .* needs flip"):
        recipes.get("rdpo-robust").apply(have)
    assert recipes.get("rdpo-robust").apply(have, flip=0.0) == recipes.get("dpo").apply(have)


def test_optional_tensors_are_passed_where_they_are_given() -> None:
    logp, mask = torch.tensor([[-1.0, -9.0]]), torch.tensor([[1, 0]])
    have = {"logp_w": logp, "logp_l": logp, "mask_w": mask, "mask_l": torch.ones(1, 2)}
    assert recipes.get("simpo").apply(have).item() == pytest.approx(torch.nn.functional.softplus(torch.tensor(-7.5)))


def test_inputs_settings_and_what_must_be_given() -> None:
    simpo, robust = recipes.get("simpo"), recipes.get("rdpo-robust")
    assert simpo.inputs == ["logp_w", "logp_l"] and simpo.required == [] and dict(simpo.defaults)["beta"] == 2.0
    assert robust.inputs == ["r_w", "r_l"] and robust.required == ["flip"]


def test_the_formula_is_that_of_its_paragraph_or_of_the_first_line() -> None:
    def paragraph() -> None:
        """One line.

        Formula: a +
        b

        Not this.
        """

    def first() -> None:
        """Return ``c``."""

    def neither() -> None:
        """Nothing here."""

    made = [recipes.Recipe("x", function, {}, "sft").formula for function in (paragraph, first, neither)]
    assert made == ["a + b", "c", ""]


def test_three_near_names_are_given() -> None:
    with pytest.raises(ValueError, match="did you mean") as caught:
        recipes.get("grpo-advantag")
    assert str(caught.value).count("`") == 6
