"""Tables: the numbers in them, and which rows and cells are marked."""

from __future__ import annotations

import dataclasses
import re

import pytest

from diffalign.report.run_folder import read_run
from diffalign.report.tables import cost_table, guidance_table, reward_table, task_table


def cells(table: str) -> list[list[str]]:
    """Rows of texts, tags removed."""
    rows = re.findall("<tr.*?</tr>", table)
    return [[re.sub("<.*?>", "", cell) for cell in re.findall("<t[hd].*?</t[hd]>", row)] for row in rows]


def entry(before, after, low, high):
    return {"before": before, "after": after, "gain": after - before, "low": low, "high": high, "prompts": 40}


@pytest.fixture
def comparison():
    return {
        "overall": entry(0.4, 0.45, 0.01, 0.09),
        "tasks": {"color_attr": entry(0.3, 0.5, 0.1, 0.3), "position": entry(0.5, 0.4, -0.2, -0.01)},
        "rewards": {"jpeg": entry(-1.5, -1.6, -0.3, 0.1)},
        "level": 0.95,
    }


def test_task_rows_hold_their_numbers_and_overall_is_last(comparison):
    rows = cells(task_table(comparison))
    assert rows[1][:6] == ["color attr", "40", "0.30", "0.50", "+0.20", "[0.10, 0.30]"]
    assert rows[2][:6] == ["position", "40", "0.50", "0.40", "−0.10", "[−0.20, −0.01]"]
    assert rows[-1][0] == "overall"


def test_gains_are_marked_by_the_side_of_their_interval(comparison):
    rows = re.findall("<tr.*?</tr>", task_table(comparison))
    assert [re.search('<td class="(good|bad|open)"', row).group(1) for row in rows[1:]] == ["good", "bad", "good"]
    assert '<td class="open"' in reward_table(comparison, [])


def test_rewards_say_their_role(comparison):
    assert cells(reward_table(comparison, ["jpeg"]))[1][0] == "jpegtrained on"
    assert cells(reward_table(comparison, []))[1][0] == "jpegmeasured only"


def test_guidance_rows_in_numeric_order_with_the_best_in_bold(run_dir):
    run = read_run(run_dir)
    before = {"best_guidance": 10, "guidance": {"10.0": {"overall": 0.5}, "2.0": {"overall": 0.4}}}
    after = {"best_guidance": 2.0, "guidance": {"2.0": {"overall": 0.7}}}
    table = guidance_table(dataclasses.replace(run, before=before, after=after))
    assert cells(table)[1:] == [["2", "0.40", "0.70"], ["10", "0.50", "–"]]
    assert re.findall('class="best">(.*?)<', table) == ["0.70", "0.50"]
    assert guidance_table(dataclasses.replace(run, before=None, after=None)) is None


@pytest.mark.parametrize(("rank", "weight"), [(32, 1), (0, 2)])
def test_cost_counts_backwards_by_what_is_trained(run_dir, rank, weight):
    run = read_run(run_dir)
    rows = {row[0]: row[1:] for row in cells(cost_table(dataclasses.replace(run, config={"lora_r": rank})))}
    images, steps = 150 * 288, 7
    assert rows["rollout"][:2] == ["346k", "–"]
    assert rows["rollout"][4:] == ["346k", "8.0"]
    assert rows["train"][5] == f"{steps + weight * steps:.1f}"
    evaluations = images * (8 + 2 * steps + weight * steps) + 7 * 1920 * 16
    assert rows["total"][4] == f"{evaluations / 1e6:.2f}M"
    shares = [
        float(row[3].rstrip(" %")) for name, row in rows.items() if name not in ("phase", "total") and row[3] != "–"
    ]
    assert sum(shares) == pytest.approx(100, abs=2)


def test_no_counts_no_table(tmp_path):
    assert cost_table(read_run(tmp_path)) is None
