"""One page on any number of results of a benchmark suite: scores, paired gains, pictures, and where they come from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffalign.report.document import section, write_page
from diffalign.report.html import Markup, el, join
from diffalign.report.numbers import digits_for, interval_text, score, typographic
from diffalign.report.suite_bars import task_bars
from diffalign.report.suite_pictures import extremes, prompts_by_task
from diffalign.report.suite_results import SuiteResult, check_same_protocol, gain_over, score_entries, with_labels
from diffalign.report.tables import sheet_table, task_table

__all__ = ["write_suite_page"]


def write_suite_page(results: Sequence[SuiteResult], path: str | Path, *, mixed: bool = False) -> Path:
    """Writes the comparison of results over the same prompts; the first is what the others are compared with.

    Args:
        results: at least one, from `read_result`.
        path: the HTML file; it replaces an earlier one in a single move.
        mixed: allow results of different variants or judges; the page says so at its top.

    Raises:
        ValueError: results that cannot be compared, or one in which no prompt has a score.
    """
    results = with_labels(results)
    differences = check_same_protocol(results, mixed=mixed)
    entries = [(one.label, score_entries(one.content)) for one in results]
    title = f"{results[0].content['suite']}: {', '.join(one.label for one in results)}"
    note = _score_note(results[0].content)
    body = [
        _header(results, entries),
        _notes(results, differences),
        section("Scores", note, [_score_table(entries), task_bars(entries)]),
        *(_gain_section(results[0], other) for other in results[1:]),
        *_picture_sections(results),
        section("How it was measured", "", [_facts(results)]),
    ]
    return write_page(Path(path), title, body)


def _header(results: list[SuiteResult], entries: list[tuple[str, dict[str, Any]]]) -> Markup:
    """Suite, variant, and the overall score of each result in large type."""
    first = results[0].content
    tiles = (el("div", el("b", _scored(found["overall"])), el("span", label)) for label, found in entries)
    return el(
        "header",
        el("div", "diffalign benchmark suite", class_="overline"),
        el("h1", first["suite"]),
        el("p", " · ".join(dict.fromkeys(one.content["variant"] for one in results))),
        el("div", *tiles, class_="sheet tiles"),
    )


def _notes(results: list[SuiteResult], differences: list[str]) -> Markup | None:
    """What keeps the scores from being compared with others, or is missing."""
    lines = list(differences)
    for one in results:
        for kind in ("missing", "broken"):
            names = (one.content.get("images") or {}).get(kind) or []
            if names:
                count = f"{len(names)} image{'s are' if len(names) > 1 else ' is'} {kind} and without a score"
                lines.append(f"{one.label}: {count}, first {names[0]}.")
        if one.content.get("subset"):
            lines.append(f"{one.label}: {one.content['subset']}; published scores are of the whole suite.")
        if one.folder is None:
            lines.append(f"{one.label}: its images are not at hand, so the page shows none of them.")
    return el("div", el("ul", *(el("li", line) for line in lines)), class_="note") if lines else None


def _score_note(content: dict[str, Any]) -> str:
    images = content.get("images_per_prompt")
    each = f" ({images} per prompt)" if images else ""
    whole = "the mean of the tasks" if content["overall_of"] == "tasks" else "the mean of all prompts"
    return (
        f"Mean over prompts and their images{each}; overall is {whole}. Intervals: 95 %, bootstrap over prompts within "
        "tasks, 2,000 draws."
    )


def _score_table(entries: list[tuple[str, dict[str, Any]]]) -> Markup:
    """A row per task, a column per result, the whole below."""
    head = [el("th", "task"), el("th", "prompts", class_="roomy"), *(el("th", label) for label, _ in entries)]
    rows = []
    for task in entries[0][1]:
        cells = (_score_cell(found.get(task)) for _, found in entries)
        name, number = task.replace("_", " "), str(entries[0][1][task]["prompts"])
        class_ = "total" if task == "overall" else None
        rows.append(el("tr", el("th", name), el("td", number, class_="hint roomy"), *cells, class_=class_))
    return sheet_table(head, rows)


def _score_cell(entry: dict[str, float] | None) -> Markup:
    if entry is None:
        return el("td", "–")
    digits = digits_for(entry["low"], entry["high"], 3)
    interval = typographic(interval_text(entry["low"], entry["high"], digits))
    return el("td", typographic(score(entry["score"], digits)), " ", el("span", interval, class_="hint"))


def _scored(entry: dict[str, float]) -> str:
    return typographic(score(entry["score"], digits_for(entry["low"], entry["high"], 3)))


def _gain_section(first: SuiteResult, other: SuiteResult) -> Markup | None:
    """Paired gains of one result over the first."""
    gains = gain_over(first, other)
    tasks = {task: entry for task, entry in gains.items() if task != "overall"}
    table = task_table({"tasks": tasks, "overall": gains["overall"]}, (first.label, other.label), least=3)
    note = "Paired bootstrap over prompts within tasks; prompts that one of the two could not score are left out."
    return section(f"{other.label} over {first.label}", note, [table])


def _picture_sections(results: list[SuiteResult]) -> list[Markup | None]:
    """Prompts of every task with the pictures of all results, then the best and worst of each."""
    tasks = prompts_by_task(results)
    grids = (join(el("h3", task.replace("_", " ")), el("div", *cards, class_="cards")) for task, cards in tasks.items())
    out = [section("Pictures by task", "Prompts spread evenly over each task, first images, with scores.", [*grids])]
    for one in results:
        for title, note, cards in extremes(one):
            out.append(section(f"{one.label}: {title}", note, [el("div", *cards, class_="cards") if cards else None]))
    return out


def _facts(results: list[SuiteResult]) -> Markup:
    """Model, generation, judges and versions of each result."""
    columns = [_flat(one.content) for one in results]
    names = list(dict.fromkeys(name for column in columns for name in column))
    head = [el("th", ""), *(el("th", one.label) for one in results)]
    rows = (el("tr", el("th", name), *(el("td", column.get(name, "–")) for column in columns)) for name in names)
    return el("div", sheet_table(head, [*rows]), class_="facts")


def _flat(content: dict[str, Any]) -> dict[str, str]:
    """Dotted name -> text of all that says how a result came about."""
    out: dict[str, str] = {}

    def add(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                add(f"{name} {key}".strip(), inner)
        elif value not in (None, "", []):
            out[name] = f"{len(value)} files" if isinstance(value, list) else str(value)

    for key in ("variant", "images_per_prompt", "generation", "images", "judges", "options", "versions"):
        add(key.replace("_", " "), content.get(key))
    return out
