"""`report.html`: one self-contained page on a run, written from the files that the run folder holds."""

from __future__ import annotations

from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any

from diffalign.report.compare import headline
from diffalign.report.document import section, write_page
from diffalign.report.header import header, notes
from diffalign.report.html import Markup, el
from diffalign.report.pictures import picture_section
from diffalign.report.progress import (
    held_out_panel,
    main_scale,
    reward_panels,
    scale_name,
    task_panel,
    watch_panels,
)
from diffalign.report.run_folder import RunFolder, read_run
from diffalign.report.tables import backward_weight, cost_table, guidance_table, reward_table, task_table
from diffalign.report.timeline import timeline_section
from diffalign.report.update_panels import health_panels, step_index_panels

__all__ = ["write_report"]


def write_report(run_dir: str | Path, path: str | Path | None = None) -> Path:
    """Write the page of a run: finished, stopped, killed or still training.

    Args:
        run_dir: The trainer's `output_dir`. What is missing in it is named on the page.
        path: Where the page goes. None: `report.html` in the run folder.

    Returns:
        Path of the page.

    Raises:
        ValueError: If `run_dir` is not a folder.
    """
    run = read_run(run_dir)
    title = f"{run.name}: {headline(run.comparison)}" if run.comparison else run.name
    body = [header(run), notes(run), *_sections(run)]
    return write_page(Path(path) if path else run.path / "report.html", title, body)


def _sections(run: RunFolder) -> list[Markup | None]:
    """All sections in reading order; one without content is left out."""
    metrics, comparison = run.metrics, run.comparison
    trained = _trained(run)
    rewards = reward_panels(metrics, trained, _number(run.config.get("guidance_scale")))
    more = [task_panel(metrics), *rewards[1:]]
    first = [panel for panel in (held_out_panel(metrics), *rewards[:1]) if panel is not None]
    tables = [task_table(comparison)] if comparison else []
    if comparison and comparison.get("rewards"):
        tables.append(reward_table(comparison, trained))
    return [
        section("Progress", "The held-out score, beside the reward that is trained on.", first, "grid wide"),
        section("More held-out measures", "A gain in one task or reward can be a loss in another.", more, "grid"),
        section(
            "Watchdog",
            _watch_note(run),
            watch_panels(metrics),
            "grid",
        ),
        section("By task", _bootstrap_note(comparison), tables),
        section("Guidance", _guidance_note(run), [guidance_table(run)]),
        section("Pictures", "Held-out prompts, same starting noise before and after.", *_pictures(run)),
        section(
            "Pictures over training",
            _timeline_note(run),
            *timeline_section(run),
        ),
        section("Ratio and clipping", _ratio_note(run), step_index_panels(metrics), "grid"),
        section(
            "Health of the update", "When the reward does not rise, look here first.", health_panels(metrics), "grid"
        ),
        section("Cost", _cost_note(run), [cost_table(run)]),
        section("Configuration", "", [_config(run)]),
    ]


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


def _timeline_note(run: RunFolder) -> str:
    """How the pictures were drawn."""
    at = scale_name(_number(run.config.get("guidance_scale")))
    return f"Validation prompts{f' at {at}' if at else ''}, the same starting noise at every evaluation."


def _watch_note(run: RunFolder) -> str:
    """Where the statistics come from."""
    at = scale_name(main_scale(run.metrics)[1])
    pictures = f"held-out pictures at {at}" if at else "held-out pictures"
    return f"Statistics of the {pictures} themselves: reward hacking often shows here first."


def _number(value: Any) -> float | None:
    """A number of the configuration, None for anything else."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


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
    """The meaning of bold, and the number of images."""
    text = "Overall score on the held-out prompts; each model's best scale in bold"
    evaluation = run.after or run.before or {}
    images, few = evaluation.get("images_per_prompt"), evaluation.get("images_per_scale")
    chosen = few is not None and few != images
    return text + (f", chosen on {few} images per prompt and measured on {images}." if chosen else ".")


def _ratio_note(run: RunFolder) -> str:
    """The meaning of the colours, and the clip range to compare the spread with."""
    epsilon = run.config.get("epsilon")
    clip = f" The clip range is {epsilon:g}." if isinstance(epsilon, int | float) else ""
    return (
        "One line per denoising step, from the first (blue, noisiest) to the last (orange), at the last update of each "
        f"rollout.{clip}"
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
