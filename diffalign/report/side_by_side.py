"""One page on several runs: results, curves over each other, and the settings in which they differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from pathlib import Path

from diffalign.report.curves import Line, Points, smooth
from diffalign.report.document import section, write_page
from diffalign.report.figure import COLOURS, LARGE, SMALL, last_step, panel
from diffalign.report.forest import verdict
from diffalign.report.html import Markup, el
from diffalign.report.metrics_log import series
from diffalign.report.numbers import compact, duration, interval_text, score, signed, typographic
from diffalign.report.progress import main_scale, scale_name
from diffalign.report.run_folder import RunFolder, read_run
from diffalign.report.tables import backward_weight, plain_table

__all__ = ["write_side_by_side"]

Runs = Mapping[str, RunFolder]
UPDATE = {
    "kl": ("KL to the reference", "distance from the base model"),
    "grad_norm": ("Gradient norm", "before clipping"),
    "group/zero_std": ("Groups without spread", "share of groups whose images all score the same"),
}
"""Metric of a step -> title and hint of its panel."""
PLACES = {"output_dir", "run_name", "overwrite_output_dir", "resume_from_checkpoint"}
"""Keys that say where a run is kept, not what it does."""


def write_side_by_side(run_dirs: Sequence[str | Path], path: str | Path) -> Path:
    """Write one page on several runs.

    Args:
        run_dirs: Run folders, finished or not.
        path: Where the page goes.

    Returns:
        Path of the page.

    Raises:
        ValueError: If one is not a folder, or there are fewer than two.
    """
    runs = named_runs([read_run(folder) for folder in run_dirs])
    if len(runs) < 2:
        raise ValueError(f"a comparison needs at least two run folders, got {len(runs)}")
    head = el("header", el("div", "diffalign runs side by side", class_="overline"), el("h1", " · ".join(runs)))
    body = [
        head,
        section("Results", _protocol_note(runs), [_results(runs)]),
        section("Progress", "Held-out scores and rewards by optimisation step.", _progress(runs), "grid wide"),
        section("Update", "", _update(runs), "grid"),
        section("Settings that differ", "Everything else is equal.", [_differences(runs)]),
    ]
    return write_page(Path(path), " · ".join(runs), body)


def named_runs(runs: Sequence[RunFolder]) -> dict[str, RunFolder]:
    """Runs by name; those of one name by the folder that tells them apart, or by number."""
    names = [run.name for run in runs]
    folders = [run.path.resolve() for run in runs]
    paths = (f"{folder.parent.name}/{folder.name}" for folder in folders)
    labels = [name if names.count(name) == 1 else path for name, path in zip(names, paths, strict=True)]
    copies = [labels[: i + 1].count(label) for i, label in enumerate(labels)]
    return {
        label if copy == 1 else f"{label} ({copy})": run for label, copy, run in zip(labels, copies, runs, strict=True)
    }


def _protocol_note(runs: Runs) -> str:
    """Whether the scores may be compared at all."""
    keys = ("suite", "images_per_prompt", "num_inference_steps", "prompts")
    protocols = {tuple((run.comparison or {}).get(key) for key in keys) for run in runs.values() if run.comparison}
    if len(protocols) > 1:
        return "These runs were evaluated by different protocols (suite, images, steps or prompts): compare with care."
    return "Each model at its own best guidance scale."


def _results(runs: Runs) -> Markup:
    """One row per run."""
    titles = ("run", "before", "after", "gain", "95% CI", "guidance", "steps", "model evaluations", "time")
    return plain_table(titles, [_result(name, run) for name, run in runs.items()])


def _result(name: str, run: RunFolder) -> Markup:
    metrics, found = run.metrics, (run.comparison or {}).get("overall")
    guidance = (run.comparison or {}).get("guidance") or {}
    scales = [guidance.get(tag) for tag in ("before", "after")]
    forwards, backwards = (sum(metrics.totals(kind).values()) for kind in ("forward", "backward"))
    cells = [
        el("td", typographic(score(found["before"], 3)) if found else "–"),
        el("td", typographic(score(found["after"], 3)) if found else "–"),
        el("td", typographic(signed(found["gain"], 3)) if found else "–", class_=verdict(found) if found else None),
        el("td", typographic(interval_text(found["low"], found["high"], 3)) if found else "–"),
        el("td", " → ".join(f"{scale:g}" for scale in scales) if None not in scales else "–"),
        el("td", str(last_step(metrics))),
        el("td", compact(forwards + backward_weight(run) * backwards)),
        el("td", duration(sum(metrics.totals("seconds").values()))),
    ]
    return el("tr", el("th", name), *cells)


def _progress(runs: Runs) -> list[Markup]:
    """Held-out score and each reward, a line per run."""
    held_out = _lines(runs, lambda run: series(main_scale(run.metrics)[0], "overall"), "dots", _at_scale)
    panels = [_panel("Held-out score", held_out, "mean over tasks", runs, LARGE)] if held_out else []
    for name in dict.fromkeys(name for run in runs.values() for name in run.metrics.reward_names()):
        key = f"reward/{name}/mean"
        lines = _lines(runs, lambda run, key=key: _trend(run.metrics.step_series(key)), suffix=_rollout_scale)  # type: ignore[misc]
        panels.append(_panel(f"Reward: {name}", lines, "training rollouts, running mean", runs, LARGE))
    return panels


def _update(runs: Runs) -> list[Markup]:
    """The state of the update, a line per run; a KL of 0 throughout was not computed."""
    panels = []
    for key, (title, hint) in UPDATE.items():
        lines = _lines(runs, lambda run, key=key: run.metrics.step_series(key))  # type: ignore[misc]
        if any(value for line in lines for _, value in line.points):
            panels.append(_panel(title, lines, hint, runs, SMALL, zero=True))
    return panels


def _lines(
    runs: Runs,
    points_of: Callable[[RunFolder], Points],
    kind: str = "line",
    suffix: Callable[[RunFolder], str] = lambda run: "",
) -> list[Line]:
    """One line per run that has points; a run has one colour throughout."""
    found = [
        (name + suffix(run), points_of(run), colour)
        for (name, run), colour in zip(runs.items(), cycle(COLOURS), strict=False)
    ]
    return [Line(name, points, colour, kind) for name, points, colour in found if points]


def _at_scale(run: RunFolder) -> str:
    scale = main_scale(run.metrics)[1]
    return f", {scale_name(scale)}" if scale is not None else ""


def _rollout_scale(run: RunFolder) -> str:
    scale = run.config.get("guidance_scale")
    return f", {scale_name(scale)}" if isinstance(scale, int | float) else ""


def _trend(points: Points) -> Points:
    """The running mean that the page of a single run draws."""
    return smooth(points, 2 * max(2, len(points) // 24) + 1) if len(points) >= 12 else points


def _panel(
    title: str, lines: list[Line], hint: str, runs: Runs, size: tuple[int, int], *, zero: bool = False
) -> Markup:
    last = max(last_step(run.metrics) for run in runs.values())
    return panel(title, lines, hint, last, zero=zero, size=size)


def _differences(runs: Runs) -> Markup | None:
    """Keys with more than one value."""
    keys = dict.fromkeys(key for run in runs.values() for key in run.config if key not in PLACES)
    rows = {key: [str(run.config.get(key, "–")) for run in runs.values()] for key in keys}
    shown = [
        el("tr", el("th", key), *(el("td", one) for one in values))
        for key, values in rows.items()
        if len(set(values)) > 1
    ]
    return plain_table(("setting", *runs), shown) if shown else None
