"""What happens before a run: data, rewards, what is trained, the run folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator
from torch import nn

from diffalign import rewards as registry
from diffalign.config import RunConfig, changed
from diffalign.models import Adapter, add_lora, has_lora, load_lora, save_trained, train_all, trainable_parameters
from diffalign.rewards.base import Reward
from diffalign.trainers.draw import Record

OWN_FILES = ("metrics.jsonl", "config.yaml", "report.html", "README.md", "pytorch_lora_weights.safetensors")
OWN_FOLDERS = ("checkpoint-*", ".checkpoint-*", "evaluation", "images")


def records(
    reader: Callable[[str], Sequence[Any]], given: Sequence[Any] | None, source: str | None, limit: int | None
) -> list[Record]:
    """Prompt records from what the caller gave, or read from `source`.

    Raises:
        ValueError: nothing there, or an element that is neither a string nor a record with a prompt.
    """
    if given is None and source in (None, "none"):
        return []
    found = reader(str(source)) if given is None else [_record(element) for element in given]
    if not found:
        raise ValueError("the prompt dataset is empty")
    return list(found[:limit])


def _record(element: Any) -> Record:
    if isinstance(element, str):
        return {"prompt": element, "metadata": {}}
    if isinstance(element, Mapping) and isinstance(element.get("prompt"), str):
        extra = {key: value for key, value in element.items() if key not in ("prompt", "metadata")}
        return {"prompt": element["prompt"], "metadata": {**extra, **element.get("metadata", {})}}
    raise ValueError(f'a prompt record is a string or {{"prompt": str, "metadata": dict}}; got {element!r}')


def rewards(sources: Any, arguments: Mapping[str, Mapping[str, Any]]) -> dict[str, Reward]:
    """Rewards by name, in the given order.

    Raises:
        ValueError: an unknown reward, two of one name, or arguments for a reward that is not used.
    """
    listed = [sources] if isinstance(sources, str) or callable(sources) else list(sources)
    out: dict[str, Reward] = {}
    for source in listed:
        keywords = arguments.get(source, {}) if isinstance(source, str) else {}
        reward = registry.get(source, **keywords)
        if reward.name in out:
            raise ValueError(f"two rewards are called {reward.name!r}: give one of them another name")
        out[reward.name] = reward
    return out


def make_trainable(policy: Adapter, args: RunConfig, peft_config: Any) -> RunConfig:
    """Put the LoRA on, or open all weights; returns the configuration that describes what was done.

    Raises:
        ValueError: settings that contradict each other.
    """
    if peft_config is not None:
        args = changed(
            args,
            lora_r=peft_config.r,
            lora_alpha=float(peft_config.lora_alpha),
            lora_dropout=float(peft_config.lora_dropout),
            lora_target_modules=sorted(peft_config.target_modules) if peft_config.target_modules else None,
        )
    if has_lora(policy):
        raise ValueError("the model carries a LoRA already: fuse it, or give the bare model and lora_path")
    if args.lora_path:
        load_lora(policy, args.lora_path)
    elif args.lora_r:
        add_lora(
            policy,
            rank=args.lora_r,
            alpha=args.lora_alpha,
            dropout=args.lora_dropout,
            targets=args.lora_target_modules,
            seed=args.seed,
        )
    else:
        if args.mixed_precision == "fp16":
            policy.denoiser.float()
        train_all(policy)
    if not trainable_parameters(policy):
        raise ValueError("nothing is trainable: the LoRA touches no module of this model")
    return args


def weight_dtype(args: RunConfig) -> torch.dtype:
    """Storage of frozen weights: half precision only beside a LoRA, whose own weights stay fp32."""
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}
    return half.get(args.mixed_precision, torch.float32) if args.lora_r and torch.cuda.is_available() else torch.float32


def make_ema(parameters: list[nn.Parameter], args: RunConfig) -> Any:
    """diffusers' EMAModel (its warm-up is min(decay, (1 + n) / (10 + n))), or None."""
    if args.ema_decay == 0:
        return None
    from diffusers.training_utils import EMAModel

    return EMAModel(parameters, decay=args.ema_decay)


@contextmanager
def averaged(ema: Any, parameters: list[nn.Parameter]) -> Iterator[None]:
    """The parameters hold their averages inside, and the trained values again after it."""
    if ema is None:
        yield
        return
    ema.store(parameters)
    ema.copy_to(parameters)
    try:
        yield
    finally:
        ema.restore(parameters)


def save_model(policy: Adapter, folder: Path) -> Path:
    """Write the trained weights for diffusers."""
    return save_trained(policy, folder)


def claim_folder(folder: Path, resume: str | None, overwrite: bool, accelerator: Accelerator) -> None:
    """Make the run folder; a finished or stopped run in it is neither mixed with nor lost.

    Raises:
        ValueError: the folder holds a run, and neither resuming nor overwriting was asked for.
    """
    holds_run = (folder / "metrics.jsonl").exists() or any(folder.glob("checkpoint-*"))
    if holds_run and not resume and not overwrite:
        raise ValueError(
            f"{folder} already holds a run: resume it (resume_from_checkpoint: latest), choose another output_dir, or "
            "set overwrite_output_dir: true"
        )
    if accelerator.is_main_process:
        if holds_run and not resume:
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


def summed(accelerator: Accelerator, counts: Mapping[str, int]) -> dict[str, int]:
    """Counts added up over processes; a process that had nothing to do counts as zero."""
    from accelerate.utils import gather_object

    total: dict[str, int] = {}
    for part in gather_object([dict(counts)]):
        for name, value in part.items():
            total[name] = total.get(name, 0) + value
    return total
