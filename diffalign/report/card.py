"""The model card of a run: `README.md` with front matter for the Hub, results, and how to load the weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from diffalign.report.compare import headline
from diffalign.report.numbers import digits_for, interval_text, score, signed
from diffalign.report.run_folder import RunFolder, read_run
from diffalign.report.usage import usage, weights_in

__all__ = ["write_card"]

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def write_card(
    run_dir: str | Path,
    *,
    base_model: str | None = None,
    name: str | None = None,
    call_kwargs: Mapping[str, Any] | None = None,
) -> Path:
    """Write `README.md` into a run folder.

    Args:
        run_dir: The trainer's `output_dir`.
        base_model: Hub id or path of the model that was aligned. None: `pretrained_model_name_or_path` of the run.
        name: Title. None: the run's name.
        call_kwargs: Arguments that every call of the pipeline needs, e.g. `{"max_sequence_length": 16}`. The step count
            and guidance scale of the evaluation are added from the comparison.

    Returns:
        Path of the card.

    Raises:
        ValueError: If `run_dir` is not a folder.
    """
    run = read_run(run_dir)
    base = base_model or run.config.get("pretrained_model_name_or_path")
    weights = weights_in(run.path)
    lora = weights.kind == "lora"
    front = yaml.safe_dump(_front_matter(run, base, lora), sort_keys=False, allow_unicode=True)
    parts = [
        f"---\n{front}---",
        f"# {_line(name or run.name)}",
        _summary(run, base, lora),
        *_results(run.comparison),
        f"## How to load\n\n```python\n{usage(base, weights, run.comparison, call_kwargs or {})}\n```",
        *_training(run),
    ]
    path = run.path / "README.md"
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8", errors="replace")
    return path


def _front_matter(run: RunFolder, base: str | None, lora: bool) -> dict[str, Any]:
    """Metadata that the Hub understands; a base model that is a local path is not a link and stays out."""
    tags = ["diffalign", "text-to-image", "reinforcement-learning", "diffusers", *(["lora"] if lora else [])]
    front: dict[str, Any] = {"library_name": "diffusers", "pipeline_tag": "text-to-image", "tags": tags}
    if base and HUB_ID.fullmatch(base) and not Path(base).exists():
        front |= {"base_model": base, "base_model_relation": "adapter" if lora else "finetune"}
    return front


def _summary(run: RunFolder, base: str | None, lora: bool) -> str:
    """Model, rewards and steps, in one paragraph."""
    kind = "LoRA weights for" if lora else "A fine-tuned version of"
    rewards = ", ".join(f"`{_line(name)}`" for name in run.metrics.reward_names()) or "the rewards in `config.yaml`"
    steps = f" in {int(run.metrics.steps[-1]['step'])} optimisation steps" if run.metrics.steps else ""
    return f"{kind} `{_line(base or 'the base model')}`, aligned with diffalign on {rewards}{steps}."


def _results(comparison: dict[str, Any] | None) -> list[str]:
    """Headline and table by task; nothing without a comparison."""
    if comparison is None:
        return []
    level = f"{comparison.get('level', 0.95) * 100:g}% CI"
    digits = digits_for(comparison["overall"]["low"], comparison["overall"]["high"])
    rows = [*comparison["tasks"].items(), ("**overall**", comparison["overall"])]
    table = [f"| task | before | after | gain | {level} |", "|---|---:|---:|---:|---:|"]
    table += [
        f"| {_line(name)} | {score(one['before'], digits)} | {score(one['after'], digits)} "
        f"| {signed(one['gain'], digits)} | {interval_text(one['low'], one['high'], digits)} |"
        for name, one in rows
    ]
    suite, images, steps, draws = (
        _line(str(comparison.get(key))) for key in ("suite", "images_per_prompt", "num_inference_steps", "draws")
    )
    protocol = (
        f"Suite `{suite}`, held-out prompts, {images} images per prompt, {steps} steps, same starting noise, each "
        f"model at its own best guidance scale ({_scale(comparison, 'before')} before, {_scale(comparison, 'after')} "
        f"after). Intervals: paired bootstrap over prompts within tasks, {draws} draws."
    )
    return [f"## Results\n\n**{headline(comparison)}**", "\n".join(table), protocol]


def _scale(comparison: dict[str, Any], tag: str) -> str:
    """Best guidance scale of one model."""
    value = (comparison.get("guidance") or {}).get(tag)
    return "unknown" if value is None else f"{value:g}"


def _training(run: RunFolder) -> list[str]:
    """The configuration, folded away."""
    if not run.config_text:
        return []
    fence = "`" * max(3, *(len(ticks) + 1 for ticks in re.findall("`+", run.config_text + "`")))
    return [
        f"## Training\n\nCurves and costs: `report.html`. Settings:\n\n{fence}yaml\n{run.config_text.rstrip()}\n{fence}"
    ]


def _line(text: str) -> str:
    """Text on one line that cannot leave its table cell or start a tag."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
