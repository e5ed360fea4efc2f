"""`diffalign losses`: the table by kind, and one loss in full."""

from __future__ import annotations

import json

import pytest

from diffalign.losses import recipes


@pytest.mark.parametrize("width", [120, 70])
def test_the_table_has_every_loss_and_fits_the_terminal(diffalign, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    outcome = diffalign("losses")
    assert outcome.status == 0 and max(map(len, outcome.out.splitlines())) <= width
    first = [line.split()[0] for line in outcome.out.splitlines() if line]
    assert set(recipes.names()) <= set(first) and {f"{kind}:" for kind in recipes.KINDS} <= set(first)


def test_losses_are_listed_under_their_kind(diffalign):
    kind, found = "", {}
    for line in diffalign("losses").out.splitlines():
        name = line.split()[0] if line else ""
        if name.rstrip(":") in recipes.KINDS and name.endswith(":"):
            kind = name[:-1]
        elif name in recipes.names():
            found[name] = kind
    assert found == {name: recipes.get(name).kind for name in recipes.names()}


@pytest.mark.parametrize("width", [100, 80])
def test_an_entry_fits_the_terminal(diffalign, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    head = diffalign("losses", "wpo").out.split("\n\n")[0].splitlines()
    assert width - 12 < max(map(len, head)) <= width
    assert all(line[12] == " " and line[13] != " " for line in head[1:])


def test_one_kind_alone(diffalign):
    out = diffalign("losses", "--kind", "unpaired").out
    assert "\nkto " in out and "w (1 - sigmoid(" in out and "2402.01306" in out and "\nsimpo " not in out
    wrong = diffalign("losses", "--kind", "pairs")
    assert wrong.status == 2 and "did you mean `pair`" in wrong.err


@pytest.mark.parametrize("name", ["dr-grpo", "Dr_GRPO"])
def test_one_loss_in_full_under_any_spelling(diffalign, name):
    out = diffalign("losses", name).out
    head = out.split("\n\n")[0].splitlines()[1:]
    lines = {line[2:13].strip(): line[13:] for line in head}
    assert out.startswith("dr-grpo\n") and "A = R - mean R in each group" in out
    assert lines["signature"] == "dr-grpo(log_ratio, adv, *, eps=0.2, mask=None)"
    assert lines["returns"].endswith("reduced by masked_const") and "arXiv:2503.20783" in lines["paper"]
    assert lines["form"].startswith("checked: huggingface/trl") and lines["kind"].startswith("policy, called with")
    file, line = lines["file"].split(":")
    assert file == "diffalign/losses/recipes/ppo.py" and line.isdigit()
    used = 'recipes.get("dr-grpo")(log_ratio, adv, mask=mask); loss = masked_const(loss, mask, norm=norm)'
    assert used in " ".join(out.split())


def test_an_alias_shows_whose_it_is(diffalign):
    out = diffalign("losses", "geo_mean").out
    assert out.startswith("gmpo\n") and "aliases    geo-mean" in out


def test_a_typo_names_the_nearest_and_shows_nothing(diffalign):
    outcome = diffalign("losses", "simpoo")
    assert outcome.status == 2 and outcome.out == "" and "did you mean `simpo`" in outcome.err


def test_json(diffalign):
    outcome = diffalign("losses", "cispo", "--json")
    one = json.loads(outcome.out)
    assert outcome.status == 0 and '\n  "name"' in outcome.out
    assert one["name"] == "cispo" and one["kind"] == "policy" and one["inputs"] == ["log_ratio", "adv"]
    everything = json.loads(diffalign("losses", "--json").out)
    assert [entry["name"] for entry in everything] == recipes.names()
    assert "\n  {" in diffalign("losses", "--json").out
    few = json.loads(diffalign("losses", "--kind", "mask", "--json").out)
    assert {entry["kind"] for entry in few} == {"mask"}
