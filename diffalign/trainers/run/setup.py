"""Before a run: data, rewards, model, names for the log."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from diffalign import rewards as registry
from diffalign.config import RunConfig, changed, known_keys
from diffalign.models import Adapter, adapt, load_policy
from diffalign.rewards.base import Reward
from diffalign.trainers.run.batch import Record
from diffalign.trainers.run.weights import weight_dtype

FAMILY_OPTIONS = ("resolution", "height", "width", "max_sequence_length", "embedded_guidance")
"""Keys that the model's adapter takes."""


def with_names(args: RunConfig, model: Any, reward_funcs: Any) -> RunConfig:
    """The configuration with the names of a model and rewards that were given as objects, for the log and the card.

    Raises:
        ValueError: rewards for a method that has none to optimise.
    """
    if isinstance(model, (str, Path)):
        args = changed(args, pretrained_model_name_or_path=str(model))
    elif model is not None:
        pipeline = model.pipeline if isinstance(model, Adapter) else model
        loaded_from = getattr(pipeline, "config", {}).get("_name_or_path")
        args = replace(args, pretrained_model_name_or_path=str(loaded_from or type(pipeline).__name__))
    if reward_funcs is None:
        return args
    if "reward_funcs" not in known_keys(type(args)):
        raise ValueError(f"method = {args.method} optimises no reward: name rewards to measure in eval_rewards")
    names = [
        source if isinstance(source, str) else str(getattr(source, "name", getattr(source, "__name__", source)))
        for source in listed(reward_funcs)
    ]
    return changed(args, reward_funcs=names) if names else args


def records(reader: Callable[[str], Sequence[Any]], given: Any, source: str | None, limit: int | None) -> list[Record]:
    """Records that the caller gave (or a path or name for the reader), else those of `source`.

    Raises:
        ValueError: nothing in the source, or an element that is neither a string nor a record with a prompt.
    """
    if isinstance(given, (str, Path)):
        given, source = None, str(given)
    if given is None and source in (None, "none"):
        return []
    found = reader(str(source)) if given is None else [_record(element) for element in given]
    if not found and given is None:
        raise ValueError(f"the dataset {source!r} is empty")
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
        device: where rewards without a device of their own run.

    Raises:
        ValueError: an unknown reward, two of one name, or options for a reward that is not used.
    """
    trained, held_out = listed(sources or args.trained_rewards), listed(args.eval_rewards)
    routes = getattr(args, "reward_routes", {})  # evaluation alone has none
    made = [
        registry.prepare(some, args.reward_kwargs, options=args.reward_options, routes=routes, cache=args.reward_cache)
        for some in (trained, held_out)
    ]
    known = [*made[0], *made[1], *(source for source in (*trained, *held_out) if isinstance(source, str))]
    registry.check_names("reward_options", args.reward_options, known)
    for reward in (*made[0].values(), *made[1].values()):
        registry.moved(reward, device)
    return made[0], made[1] | made[0]


def listed(sources: Any) -> list[Any]:
    """One source or several, as a list."""
    return [sources] if isinstance(sources, str) or callable(sources) else list(sources)


def family_options(args: RunConfig) -> dict[str, Any]:
    """Arguments of the model's adapter that the configuration sets."""
    return {name: getattr(args, name) for name in FAMILY_OPTIONS if getattr(args, name) is not None}


def load_model(model: Any, args: RunConfig, accelerator: Accelerator) -> Adapter:
    """The policy that a trainer's `model` argument means: an adapter, a pipeline, or a name (default: that of args).

    Raises:
        ValueError: nothing of this name, or a pipeline without an adapter.
    """
    device = accelerator.device
    options = family_options(args)
    if isinstance(model, Adapter):
        policy = model
    elif model is None or isinstance(model, (str, Path)):
        policy = load_policy(
            args.pretrained_model_name_or_path,
            revision=args.revision,
            variant=args.variant,
            dtype=weight_dtype(args),
            denoiser_dtype=torch.float32 if args.denoiser_dtype == "fp32" else None,
            device=device,
            **options,
        )
    else:
        policy = adapt(model, device=device, **options)
    policy.autocast = accelerator.autocast
    if args.gradient_checkpointing and not policy.checkpointing:
        raise ValueError(
            f"gradient_checkpointing changes what the network of {type(policy.pipeline).__name__} computes: leave it "
            "out"
        )
    if args.gradient_checkpointing:
        policy.denoiser.enable_gradient_checkpointing()
    return policy


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
    for own in gather_object([dict(counts)]):
        for name, value in own.items():
            total[name] = total.get(name, 0) + value
    return total
