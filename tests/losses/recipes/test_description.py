"""What the registry says of each recipe in words is there and true."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest
import torch

from diffalign.losses import recipes
from diffalign.losses.recipes import description as D

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_has_a_formula_and_a_place(name: str) -> None:
    found = recipes.describe(recipes.get(name))
    assert found["formula"] and not found["formula"].endswith((".", ",")), found["formula"]
    line = (ROOT / found["file"]).read_text().splitlines()[found["line"] - 1]
    assert line.startswith(("def ", "@"))
    assert found["title"] and found["confidence"] and json.dumps(found)


def test_formula_of_a_paragraph_and_of_a_first_line() -> None:
    assert recipes.get("simpo").formula == "-log sigmoid(beta (mean_t logp_w - mean_t logp_l) - gamma)"
    assert recipes.get("cispo").formula == "-sg(clip(rho, 1 - eps_low, 1 + eps_high)) A x"


def test_the_signature_has_published_settings_and_what_must_be_given() -> None:
    assert D.signature(recipes.get("rdpo-robust")) == "rdpo-robust(r_w, r_l, *, beta=0.1, flip)"
    assert D.signature(recipes.get("madpo")) == (
        "madpo(r_w, r_l, rm_margin, *, beta=0.1, tau=6.906754778648554, c_min=0.5, c_max=2.0, lam=1.0)"
    )
    assert "link=js_link" in D.signature(recipes.get("f-dpo"))
    assert D.signature(recipes.get("dro")) == "dro(log_ratio, adv, *, beta=0.1, mask=None)"


def test_the_use_names_what_must_be_given_and_the_reduction() -> None:
    assert D.usage(recipes.get("clip-cov")) == (
        "from diffalign.losses import masked_mean, recipes; "
        'loss = recipes.get("clip-cov")(log_ratio, adv, logp=logp, generator=generator, mask=mask); '
        "loss = masked_mean(loss, mask)"
    )
    assert D.usage(recipes.get("dr-grpo")).endswith("; loss = masked_const(loss, mask, norm=norm)")
    assert D.usage(recipes.get("remax")).endswith('; advantage = recipes.get("remax")(rewards, greedy)')
    assert D.usage(recipes.get("dpo")) == 'from diffalign.losses import recipes; loss = recipes.get("dpo")(r_w, r_l)'


def test_the_use_runs() -> None:
    scope = {"log_ratio": torch.zeros(2, 3), "adv": torch.ones(2), "mask": torch.ones(2, 3)}
    exec(D.usage(recipes.get("gspo")), scope)  # noqa: S102
    assert scope["loss"] == -1


def test_the_place_of_a_function_behind_a_decorator() -> None:
    file, line = D.place(recipes.get("k3"))
    source = inspect.getsource(recipes.get("k3").function)
    assert file == "diffalign/losses/regularizers.py" and (ROOT / file).read_text().splitlines()[line - 1] in source


def test_settings_are_numbers_or_names() -> None:
    assert recipes.describe(recipes.get("awm"))["settings"] == {
        "eps": 1.0, "adv_clip": 5.0, "matching": "generalised_huber_matching",
    }  # fmt: skip
    assert recipes.describe(recipes.get("dpo"))["reduction"] == "mean"
    assert recipes.describe(recipes.get("remax"))["reduction"] is None
