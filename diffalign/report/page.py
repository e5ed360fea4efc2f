"""`report.html`: one self-contained page on a run, written from whatever the run folder holds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any

from diffalign.report.compare import headline
from diffalign.report.header import header, notes
from diffalign.report.html import Markup, el, join
from diffalign.report.pictures import picture_section
from diffalign.report.progress import held_out_panel, reward_panels, task_panel, watch_panels
from diffalign.report.run_folder import RunFolder, read_run
from diffalign.report.style import READ_OUT, STYLE
from diffalign.report.tables import backward_weight, cost_table, guidance_table, reward_table, task_table
from diffalign.report.update_panels import health_panels, step_index_panels

__all__ = ["write_report"]


def write_report(run_dir: str | Path) -> Path:
    """Write `report.html` into a run folder, complete, unfinished or still being written.

    Args:
        run_dir: The trainer's `output_dir`. What is missing in it is named on the page.

    Returns:
        Path of the page. It replaces an earlier one in a single move, so that a reader never sees half a page.

    Raises:
        ValueError: If `run_dir` is not a folder.
    """
    run = read_run(run_dir)
    path = run.path / "report.html"
    partial = path.with_suffix(".html.partial")
    partial.write_text(_page(run), encoding="utf-8", errors="replace")
    partial.replace(path)
    return path


def _page(run: RunFolder) -> str:
    """The whole document."""
    title = f"{run.name}: {headline(run.comparison)}" if run.comparison else run.name
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("title", title),
        el("style", Markup(STYLE)),
    )
    main = el("main", header(run), notes(run), *_sections(run))
    return "<!doctype html>\n" + el("html", head, el("body", main, el("script", Markup(READ_OUT))), lang="en")


def _sections(run: RunFolder) -> list[Markup | None]:
    """All sections in reading order; one without content is left out."""
    metrics, comparison = run.metrics, run.comparison
    trained = _trained(run)
    rewards = reward_panels(metrics, trained)
    more = [task_panel(metrics), *rewards[1:]]
    first = [panel for panel in (held_out_panel(metrics), *rewards[:1]) if panel is not None]
    tables = [task_table(comparison)] if comparison else []
    if comparison and comparison.get("rewards"):
        tables.append(reward_table(comparison, trained))
    return [
        _section("Progress", "What counts, beside what is trained on.", first, "grid wide"),
        _section("More held-out measures", "A gain in one task or reward can be a loss in another.", more, "grid"),
        _section(
            "Watchdog",
            "What the pictures themselves look like: a reward that is gamed often shows here first.",
            watch_panels(metrics),
            "grid",
        ),
        _section("By task", _bootstrap_note(comparison), tables),
        _section("Guidance", _guidance_note(run), [guidance_table(run)]),
        _section("Pictures", "Held-out prompts, same starting noise before and after.", *_pictures(run)),
        _section("Ratio and clipping", _ratio_note(run), step_index_panels(metrics), "grid"),
        _section(
            "Health of the update", "When the reward does not rise, look here first.", health_panels(metrics), "grid"
        ),
        _section("Cost", _cost_note(run), [cost_table(run)]),
        _section("Configuration", "", [_config(run)]),
    ]


def _section(title: str, lead: str, parts: Sequence[Markup | None], grid: str | None = None) -> Markup | None:
    """Heading, one sentence, content; None without content."""
    content = [part for part in parts if part is not None]
    if not content:
        return None
    body = el("div", *content, class_=grid) if grid else join(*content)
    return el("section", el("h2", title), el("p", lead) if lead else None, body)


def _pictures(run: RunFolder) -> tuple[list[Markup], str]:
    """Cards, and their grid: pairs of single pictures take less room than strips of several."""
    prompts = (run.samples or {}).get("prompts") or []
    single = all(left != right for left, right in pairwise(prompts))
    return picture_section(run), "grid pairs" if single else "grid"


def _trained(run: RunFolder) -> list[str]:
    """Rewards that were trained on: those of the steps that the configuration does not weigh 0 or call held-out."""
    names, held_out = run.metrics.reward_names(), run.config.get("eval_rewards") or []
    weights = run.config.get("reward_weights") or [1.0] * len(names)
    pairs = zip_longest(names, weights[: len(names)], fillvalue=1.0)
    return [str(name) for name, weight in pairs if weight != 0 and name not in held_out]


def _bootstrap_note(comparison: dict[str, Any] | None) -> str:
    """How the intervals came about."""
    if comparison is None:
        return ""
    images, draws = comparison.get("images_per_prompt"), comparison.get("draws")
    text = f"Each model at its own best guidance, {images} images per prompt, same starting noise. Intervals: paired "
    text += f"bootstrap over prompts within tasks, {draws} draws. Overall is the mean of the tasks."
    dropped = comparison.get("dropped")
    return text + (f" {dropped} prompts could not be scored and are left out." if dropped else "")


def _guidance_note(run: RunFolder) -> str:
    """What is bold, and from how many images."""
    text = "Overall score on the held-out prompts; each model's best scale in bold"
    evaluation = run.after or run.before or {}
    images, few = evaluation.get("images_per_prompt"), evaluation.get("images_per_scale")
    chosen = few is not None and few != images
    return text + (f", chosen on {few} images per prompt and measured on {images}." if chosen else ".")


def _ratio_note(run: RunFolder) -> str:
    """What the colours mean, and the clip range to hold the spread against."""
    epsilon = run.config.get("epsilon")
    clip = f" The clip range is {epsilon:g}." if isinstance(epsilon, int | float) else ""
    return (
        "One line per denoising step, from the first (blue, noisiest) to the last (orange), at the last update of each "
        f"roll-out.{clip}"
    )


def _cost_note(run: RunFolder) -> str:
    """The unit of the table."""
    weight = backward_weight(run)
    return f"A model evaluation is one image through the denoiser once; a backward pass counts as {weight}."


def _config(run: RunFolder) -> Markup | None:
    """The resolved configuration as written."""
    if not run.config_text:
        return None
    return el("details", el("summary", "config.yaml"), el("pre", run.config_text), class_="sheet")
