"""Head of the page: name, result, size of the run, what is missing."""

from __future__ import annotations

from typing import Any

from diffalign.report.compare import headline, subset_text
from diffalign.report.forest import verdict
from diffalign.report.html import Markup, el
from diffalign.report.numbers import compact, digits_for, duration, gain_text, score, typographic
from diffalign.report.run_folder import RunFolder
from diffalign.report.tables import backward_weight

__all__ = ["header", "notes"]

VERDICTS = {
    "good": "The whole interval is above 0.",
    "bad": "The whole interval is below 0: the model got worse.",
    "open": "The interval contains 0: no change is shown.",
}


def header(run: RunFolder) -> Markup:
    """Name, settings in a line, the result, and the size of the run."""
    config = run.config
    facts = [
        config.get("pretrained_model_name_or_path"),
        f"LoRA rank {config['lora_r']}" if config.get("lora_r") else "full fine-tuning" if "lora_r" in config else None,
        f"group size {config['num_generations']}" if config.get("num_generations") else None,
        f"seed {config['seed']}" if "seed" in config else None,
    ]
    line = " · ".join(str(fact) for fact in facts if fact)
    overline = el("div", "diffalign run report", class_="overline")
    return el("header", overline, el("h1", run.name), el("p", line) if line else None, _hero(run), _tiles(run))


def _hero(run: RunFolder) -> Markup:
    """The result in large type, or what is known of it."""
    if run.comparison is None:
        return el("div", el("div", _partial_result(run), class_="change open"), class_="sheet hero")
    entry = run.comparison["overall"]
    digits = digits_for(entry["low"], entry["high"])
    before, after = (typographic(score(entry[key], digits)) for key in ("before", "after"))
    scores = el("div", el("span", before, " → ", class_="from"), after, class_="scores")
    gain = gain_text(entry["gain"], entry["low"], entry["high"], run.comparison.get("level", 0.95), digits)
    kind = verdict(entry)
    used, available = (run.comparison.get(key) for key in ("prompts", "prompts_available"))
    which = subset_text(used, available).removesuffix(" prompts").removeprefix(" of ")
    label = f"overall score, {which} held-out prompts" if which else "overall score, held-out prompts"
    left = el("div", el("div", label, class_="label"), scores)
    right = el("div", el("div", typographic(gain), class_=f"change {kind}"), el("div", VERDICTS[kind], class_="label"))
    return el("div", left, right, class_="sheet hero", title=headline(run.comparison))


def _partial_result(run: RunFolder) -> str:
    """One sentence for a run without a comparison."""
    known = [(tag, _best(one)) for tag, one in (("before", run.before), ("after", run.after)) if one]
    texts = [f"{tag} {score(value)}" for tag, value in known if value is not None]
    if texts:
        return f"Overall score {', '.join(texts)}: no comparison yet."
    return "No comparison before/after yet."


def _best(evaluation: dict[str, Any]) -> float | None:
    """Overall score at the model's own best guidance scale."""
    found = [one.get("overall") for one in (evaluation.get("guidance") or {}).values()]
    return max((value for value in found if value is not None), default=None)


def _tiles(run: RunFolder) -> Markup | None:
    """Size and price of the run in a row of figures."""
    metrics = run.metrics
    forwards, backwards = (sum(metrics.totals(kind).values()) for kind in ("forward", "backward"))
    evaluations = forwards + backward_weight(run) * backwards
    guidance = (run.comparison or {}).get("guidance") or {}
    scales = [guidance.get(tag) for tag in ("before", "after")]
    tiles = [
        (str(int(metrics.steps[-1]["step"])) if metrics.steps else "", "optimisation steps"),
        (compact(metrics.total("images")) if metrics.total("images") else "", "training images"),
        (compact(evaluations) if evaluations else "", "model evaluations"),
        (duration(seconds) if (seconds := sum(metrics.totals("seconds").values())) else "", "time"),
        (" → ".join(f"{scale:g}" for scale in scales) if None not in scales else "", "best guidance"),
    ]
    shown = [el("div", el("b", value), el("span", name)) for value, name in tiles if value]
    return el("div", *shown, class_="sheet tiles") if shown else None


def notes(run: RunFolder) -> Markup | None:
    """Missing parts, and the last ten warnings of the trainer."""
    warnings = [f"step {row.get('step', '?')}: {row.get('message', '')}" for row in run.metrics.warnings]
    hidden = [f"{len(warnings) - 10} earlier warnings are in metrics.jsonl."] if len(warnings) > 10 else []
    broken = [f"{run.metrics.skipped} broken line(s) in metrics.jsonl were left out."] if run.metrics.skipped else []
    lines = [*run.missing, *broken, *hidden, *warnings[-10:]]
    return el("div", el("ul", *(el("li", line) for line in lines)), class_="note") if lines else None
