"""What happens before a run: data, rewards, the run folder."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator

from diffalign import rewards as registry
from diffalign.config import RunConfig
from diffalign.models import Adapter, save_trained
from diffalign.rewards.base import Reward
from diffalign.trainers.rollout_spec import Record

OWN_FILES = ("metrics.jsonl", "config.yaml", "report.html", "README.md", "pytorch_lora_weights.safetensors")
OWN_FOLDERS = ("checkpoint-*", ".checkpoint-*", "evaluation", "images")


def with_names(args: RunConfig, model: Any, reward_funcs: Any) -> RunConfig:
    """The configuration with the names of a model and rewards that were given as objects, for the log and the card."""
    if isinstance(model, (str, Path)):
        args = replace(args, pretrained_model_name_or_path=str(model))
    elif model is not None:
        pipeline = model.pipeline if isinstance(model, Adapter) else model
        loaded_from = getattr(pipeline, "config", {}).get("_name_or_path")
        args = replace(args, pretrained_model_name_or_path=str(loaded_from or type(pipeline).__name__))
    names = [
        source if isinstance(source, str) else str(getattr(source, "name", getattr(source, "__name__", source)))
        for source in _listed(reward_funcs or [])
    ]
    return replace(args, reward_funcs=names) if names else args


def check_trackers(names: Sequence[str]) -> None:
    """Refuse a tracker that is not installed, which accelerate would leave out with a warning.

    Raises:
        ValueError: its name, and how to get it.
    """
    from accelerate.tracking import get_available_trackers

    missing = sorted(set(names) - {str(tracker) for tracker in get_available_trackers()})
    if missing:
        raise ValueError(f"report_to names {', '.join(missing)}, not installed here: pip install {' '.join(missing)}")


def records(
    reader: Callable[[str], Sequence[Any]], given: Sequence[Any] | None, source: str | None, limit: int | None
) -> list[Record]:
    """Prompt records from what the caller gave, or read from `source`.

    Raises:
        ValueError: nothing in `source`, or an element that is neither a string nor a record with a prompt.
    """
    if given is None and source in (None, "none"):
        return []
    found = reader(str(source)) if given is None else [_record(element) for element in given]
    if not found and given is None:
        raise ValueError(f"the prompt dataset {source!r} is empty")
    return list(found[:limit])


def _record(element: Any) -> Record:
    if isinstance(element, str):
        return {"prompt": element, "metadata": {}}
    if isinstance(element, Mapping) and isinstance(element.get("prompt"), str):
        extra = {key: value for key, value in element.items() if key not in ("prompt", "metadata")}
        return {"prompt": element["prompt"], "metadata": {**extra, **element.get("metadata", {})}}
    raise ValueError(f'a prompt record is a string or {{"prompt": str, "metadata": dict}}; got {element!r}')


def rewards(sources: Any, args: RunConfig, device: torch.device) -> tuple[dict[str, Reward], dict[str, Reward]]:
    """Trained and evaluated rewards by name, in the given order, on their devices.

    Args:
        sources: the trained ones; default those of args. Those of args.eval_rewards are evaluated beside them.
        args: the run configuration.
        device: where rewards without a device of their own lie.

    Raises:
        ValueError: an unknown reward, two of one name, or options for a reward that is not used.
    """
    trained, held_out = _listed(sources or args.reward_funcs), _listed(args.eval_rewards)
    made = [
        registry.prepare(
            some, args.reward_kwargs, options=args.reward_options, routes=args.reward_routes, cache=args.reward_cache
        )
        for some in (trained, held_out)
    ]
    known = [*made[0], *made[1], *(source for source in (*trained, *held_out) if isinstance(source, str))]
    registry.check_names("reward_options", args.reward_options, known)
    for reward in (*made[0].values(), *made[1].values()):
        registry.moved(reward, device)
    return made[0], made[1] | made[0]


def _listed(sources: Any) -> list[Any]:
    return [sources] if isinstance(sources, str) or callable(sources) else list(sources)


def family_options(args: RunConfig) -> dict[str, Any]:
    """Arguments of the adapter that only some families take."""
    return {} if args.max_sequence_length is None else {"max_sequence_length": args.max_sequence_length}


def save_model(policy: Adapter, folder: Path) -> Path:
    """Write the trained weights for diffusers."""
    return save_trained(policy, folder)


def claim_folder(folder: Path, resume: Path | None, overwrite: bool, accelerator: Accelerator) -> None:
    """Make the run folder; a finished or stopped run in it is neither mixed with nor lost.

    Raises:
        ValueError: the folder holds another run than the one to resume and overwriting was not asked for.
    """
    holds_run = (folder / "metrics.jsonl").exists() or any(folder.glob("checkpoint-*"))
    goes_on = resume is not None and resume.resolve().parent == folder.resolve()
    if holds_run and not goes_on and not overwrite:
        raise ValueError(
            f"{folder} already holds a run: resume it (resume_from_checkpoint: latest), choose another output_dir, or "
            "set overwrite_output_dir: true"
        )
    if accelerator.is_main_process:
        if holds_run and not goes_on:
            _remove_run(folder)
        folder.mkdir(parents=True, exist_ok=True)
    accelerator.wait_for_everyone()


def _remove_run(folder: Path) -> None:
    """Only what a run writes; anything else in the folder stays."""
    for name in OWN_FILES:
        (folder / name).unlink(missing_ok=True)
    for pattern in OWN_FOLDERS:
        for path in folder.glob(pattern):
            shutil.rmtree(path)


def flat(args: RunConfig) -> dict[str, Any]:
    """The configuration as trackers take it: numbers and strings."""
    simple = (int, float, str, bool)
    return {k: v if isinstance(v, simple) else yaml.safe_dump(v).strip() for k, v in asdict(args).items()}


def agreed_stop(accelerator: Accelerator, number: int) -> int:
    """The signal that asked any process to stop (the higher number of two), so that all leave the loop together."""
    if accelerator.num_processes == 1:
        return number
    asked = torch.zeros(signal.NSIG, device=accelerator.device)
    asked[number] = 1
    return int(accelerator.reduce(asked, reduction="sum").nonzero().max())


def any_process(accelerator: Accelerator, flag: bool) -> bool:
    """True everywhere when it is true on one process."""
    if accelerator.num_processes == 1:
        return flag
    return bool(accelerator.reduce(torch.tensor(float(flag), device=accelerator.device), reduction="sum") > 0)


def summed(accelerator: Accelerator, counts: Mapping[str, int]) -> dict[str, int]:
    """Counts added up over processes; a process that had nothing to do counts as zero."""
    from accelerate.utils import gather_object

    total: dict[str, int] = {}
    for part in gather_object([dict(counts)]):
        for name, value in part.items():
            total[name] = total.get(name, 0) + value
    return total
