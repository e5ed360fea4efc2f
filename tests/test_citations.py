from __future__ import annotations

import re

import pytest

from diffalign.citations import cite, systems


def test_an_entry_names_title_and_number() -> None:
    entry = cite("ddpo")
    assert entry.startswith("@misc{ddpo,\n") and entry.endswith("\n}")
    assert "title = {{Training Diffusion Models with Reinforcement Learning}}" in entry
    assert "arXiv:2305.13301" in entry and "year = {2023}" in entry


def test_several_come_in_the_order_asked_for() -> None:
    both = cite("flow-grpo", "ddpo")
    assert both == cite("flow-grpo") + "\n\n" + cite("ddpo")
    assert both.index("flow-grpo") < both.index("ddpo")
    assert cite() == ""


def test_a_method_without_a_number_has_no_empty_fields() -> None:
    row = next(row for row in systems().values() if not row.arxiv)
    assert row.title in cite(row.id).replace("\\", "") and "{}" not in cite(row.id) and "arXiv" not in cite(row.id)


def test_an_unknown_id_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="flow-grpo"):
        cite("ddpo", "flow_grpo")
    with pytest.raises(ValueError, match="no system 'zzzzzz' in the ledger$"):
        cite("zzzzzz")


def test_every_row_gives_balanced_bibtex() -> None:
    for row in systems().values():
        entry = cite(row.id)
        assert entry.count("{") == entry.count("}"), row.id
        assert not re.search(r"(?<!\\)[&%#]", entry), row.id
