from __future__ import annotations

import re

import pytest

from diffalign.citations import bibtex, cite, systems


def test_an_entry_names_title_and_number() -> None:
    entry = bibtex("ddpo")
    assert entry.startswith("@misc{ddpo,\n") and entry.endswith("\n}")
    assert "title = {{Training Diffusion Models with Reinforcement Learning}}" in entry
    assert "arXiv:2305.13301" in entry and "year = {2023}" in entry


def test_several_come_in_the_order_asked_for() -> None:
    both = bibtex("flow-grpo", "ddpo")
    assert both == bibtex("flow-grpo") + "\n\n" + bibtex("ddpo")
    assert both.index("flow-grpo") < both.index("ddpo")
    assert bibtex() == ""


def test_a_method_without_a_number_has_no_empty_fields() -> None:
    row = next(row for row in systems().values() if not row.arxiv)
    entry = bibtex(row.id)
    assert row.title in entry.replace("\\", "") and "{}" not in entry and "arXiv" not in entry


def test_an_unknown_id_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="flow-grpo"):
        bibtex("ddpo", "flow_grpo")
    with pytest.raises(ValueError, match="no system 'zzzzzz' in the ledger$"):
        bibtex("zzzzzz")


def test_every_row_gives_balanced_bibtex() -> None:
    for row in systems().values():
        entry = bibtex(row.id)
        assert entry.count("{") == entry.count("}"), row.id
        assert not re.search(r"(?<!\\)[&%#]", entry), row.id


def test_cite_prints_them(capsys: pytest.CaptureFixture[str]) -> None:
    cite("simpo", "ddpo")
    assert capsys.readouterr().out == bibtex("simpo", "ddpo") + "\n"
