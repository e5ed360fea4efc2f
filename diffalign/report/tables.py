"""Tables of the page: gains by task and by reward, scores by guidance scale, cost by phase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from diffalign.report.forest import axis, forest_range, interval_bar, verdict
from diffalign.report.html import Markup, el, join
from diffalign.report.numbers import compact, digits_for, duration, interval_text, score, signed, typographic
from diffalign.report.run_folder import RunFolder

__all__ = [
    "backward_weight",
    "cost_table",
    "guidance_table",
    "plain_table",
    "reward_table",
    "sheet_table",
    "task_table",
]

Entry = Mapping[str, Any]


def task_table(comparison: Entry, names: tuple[str, str] = ("before", "after"), least: int = 2) -> Markup:
    """Before, after, gain and interval per task, the overall row last, all intervals on one axis.

    Args:
        comparison: With `tasks` and `overall`.
        names: Heads of the columns before and after.
        least: Fewest decimals.
    """
    rows = [*comparison["tasks"].items(), ("overall", comparison["overall"])]
    limits = forest_range([entry for _, entry in rows])
    digits = digits_for(comparison["overall"]["low"], comparison["overall"]["high"], least)
    drawn = el("th", axis(limits), class_="drawn roomy")
    body = (_gain_row(name.replace("_", " "), entry, _bar(entry, limits), digits=digits) for name, entry in rows[:-1])
    total = _gain_row("overall", rows[-1][1], _bar(rows[-1][1], limits), digits=digits, class_="total")
    return sheet_table([*_gain_head("task", comparison, names), drawn], [*body, total])


def reward_table(comparison: Entry, trained: Sequence[str]) -> Markup:
    """Gains of every reward that was measured on the held-out prompts, with its role."""
    rows = []
    for name, entry in comparison["rewards"].items():
        role = el("span", "trained on" if name in trained else "measured only", class_="hint")
        rows.append(_gain_row(join(name, role), entry, digits=digits_for(entry["low"], entry["high"], 3)))
    return sheet_table(_gain_head("reward", comparison), rows)


def guidance_table(run: RunFolder) -> Markup | None:
    """Overall score of both models at each guidance scale, the best of each in bold; None without evaluations."""
    columns = [(tag, one) for tag, one in (("before", run.before), ("after", run.after)) if one and one.get("guidance")]
    if not columns:
        return None
    scales = sorted({scale for _, one in columns for scale in one["guidance"]}, key=float)
    head = [el("th", "guidance"), *(el("th", tag) for tag, _ in columns)]
    rows = []
    for scale in scales:
        cells = (_guidance_cell(one, scale) for _, one in columns)
        rows.append(el("tr", el("th", f"{float(scale):g}"), *cells))
    return sheet_table(head, rows)


def cost_table(run: RunFolder) -> Markup | None:
    """Forwards, backwards, model evaluations and seconds by phase; None where nothing was counted."""
    kinds = [run.metrics.totals(kind) for kind in ("forward", "backward", "seconds")]
    phases = list(dict.fromkeys(phase for kind in kinds for phase in kind))
    if not phases:
        return None
    images, weight = run.metrics.total("images"), backward_weight(run)
    head = [el("th", text) for text in ("phase", "forwards", "backwards", "time", "share")]
    head += [el("th", text, class_="roomy") for text in ("model evaluations", "per image")]
    rows = [
        _cost_row(phase, [kind.get(phase, 0.0) for kind in kinds], sum(kinds[2].values()), images, weight)
        for phase in phases
    ]
    total = _cost_row(
        "total", [sum(kind.values()) for kind in kinds], sum(kinds[2].values()), images, weight, class_="total"
    )
    return sheet_table(head, [*rows, total])


def backward_weight(run: RunFolder) -> int:
    """Model evaluations in one backward pass: 1 where only LoRA layers are trained, 2 where all weights are."""
    return 2 if run.config.get("lora_r") == 0 else 1


def plain_table(titles: Sequence[str], rows: Sequence[Markup]) -> Markup:
    """A table of rows under plain titles."""
    return sheet_table([el("th", title) for title in titles], rows)


def sheet_table(head: Sequence[Markup], rows: Sequence[Markup]) -> Markup:
    """A table that scrolls inside its sheet on a narrow screen."""
    table = el("table", el("thead", el("tr", *head)), el("tbody", *rows))
    return el("div", table, class_="sheet scroll full" if len(head) > 4 else "sheet scroll")


def _gain_head(first: str, comparison: Entry, names: tuple[str, str] = ("before", "after")) -> list[Markup]:
    """Column heads of a table of gains."""
    level = f"{comparison.get('level', 0.95) * 100:g}% CI"
    columns = (el("th", text) for text in (*names, "gain", level))
    return [el("th", first), el("th", "prompts", class_="roomy"), *columns]


def _gain_row(
    name: str, entry: Entry, last: Markup | None = None, *, digits: int = 2, class_: str | None = None
) -> Markup:
    """One line of a table of gains; the gain is coloured where its interval excludes zero."""
    return el(
        "tr",
        el("th", name),
        el("td", str(entry.get("prompts", "")), class_="hint roomy"),
        el("td", typographic(score(entry["before"], digits))),
        el("td", typographic(score(entry["after"], digits))),
        el("td", typographic(signed(entry["gain"], digits)), class_=verdict(entry)),
        el("td", typographic(interval_text(entry["low"], entry["high"], digits))),
        last,
        class_=class_,
    )


def _bar(entry: Entry, limits: tuple[float, float]) -> Markup:
    """Cell with an interval drawn."""
    return el("td", interval_bar(entry, limits), class_="drawn roomy")


def _guidance_cell(evaluation: Entry, scale: str) -> Markup:
    """Score at one scale, bold at the model's best."""
    entry = evaluation["guidance"].get(scale) or {}
    best = evaluation.get("best_guidance")
    return el(
        "td",
        typographic(score(entry.get("overall"))),
        class_="best" if best is not None and float(scale) == float(best) else None,
    )


def _cost_row(
    phase: str, counts: Sequence[float], all_seconds: float, images: float, weight: int, class_: str | None = None
) -> Markup:
    """One phase: forwards, backwards and seconds, and what follows from them."""
    forwards, backwards, seconds = counts
    evaluations = forwards + weight * backwards
    always = (
        compact(forwards) if forwards else "–",
        compact(backwards) if backwards else "–",
        duration(seconds) if seconds else "–",
        f"{100 * seconds / all_seconds:.0f} %" if all_seconds and seconds else "–",
    )
    roomy = (
        compact(evaluations) if evaluations else "–",
        f"{evaluations / images:.1f}" if evaluations and images else "–",
    )
    cells = join(*(el("td", text) for text in always), *(el("td", text, class_="roomy") for text in roomy))
    return el("tr", el("th", phase), cells, class_=class_)
