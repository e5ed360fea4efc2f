"""Trained weights: a LoRA or all of them, with dropout in updates alone, and their averages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from diffalign.config import RunConfig, changed
from diffalign.models import Adapter, add_lora, has_lora, load_lora, train_all, trainable_parameters
from diffalign.sampling import noise_key

READ = frozenset({"r", "lora_alpha", "lora_dropout", "target_modules"})
"""Fields of a peft LoraConfig that are taken over."""

UNUSED = frozenset("init_lora_weights inference_mode base_model_name_or_path revision task_type auto_mapping".split())
"""Fields that change nothing here, or (the first) are checked by hand."""


def make_trainable(policy: Adapter, args: RunConfig, peft_config: Any) -> RunConfig:
    """Put the LoRA on, or open all weights; returns the configuration that describes what was done.

    Raises:
        ValueError: settings that contradict each other.
    """
    if peft_config is not None:
        _check_plain(peft_config)
        args = _from_peft(args, peft_config)
    if has_lora(policy):
        raise ValueError("the model carries a LoRA already: fuse it, or give the bare model and lora_path")
    if args.lora_path:
        load_lora(policy, args.lora_path)
        args = _from_peft(args, policy.denoiser.peft_config["default"])
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
        train_all(policy)
    if not trainable_parameters(policy):
        raise ValueError("nothing is trainable: the LoRA touches no module of this model")
    policy.denoiser.eval()  # peft leaves its dropout on; `dropout` turns it on for updates alone
    return args


def _check_plain(peft_config: Any) -> None:
    """Refuse what would silently be left out.

    Raises:
        ValueError: the peft configuration asks for something that no lora_* key stands for.
    """
    from peft import LoraConfig

    if isinstance(peft_config.target_modules, str):
        raise ValueError(f"peft_config.target_modules = {peft_config.target_modules!r}: give a list of module names")
    plain, given = LoraConfig().to_dict(), peft_config.to_dict()
    other = [key for key in given if key not in READ | UNUSED and given[key] != plain.get(key)]
    if peft_config.init_lora_weights not in (True, "gaussian"):
        other.append("init_lora_weights")
    if other:
        raise ValueError(f"peft_config sets {', '.join(sorted(other))}, but only {', '.join(sorted(READ))} are used")


def _from_peft(args: RunConfig, peft_config: Any) -> RunConfig:
    """The configuration with the lora_* keys of a LoRA."""
    targets = peft_config.target_modules
    return changed(
        args,
        lora_r=peft_config.r,
        lora_alpha=float(peft_config.lora_alpha),
        lora_dropout=float(peft_config.lora_dropout),
        lora_target_modules=sorted(targets) if targets else None,
    )


@contextmanager
def dropout(policy: Adapter, seed: int, step: int) -> Iterator[None]:
    """LoRA dropout is on inside, its masks a function of seed and step; rollout and evaluation never have any."""
    named = policy.denoiser.named_modules()
    layers = [m for name, m in named if "lora_dropout" in name and isinstance(m, nn.Dropout) and m.p > 0]
    if not layers:
        yield
        return
    devices = [policy.device] if policy.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(noise_key(seed, step) & 0x7FFFFFFF)
        for layer in layers:
            layer.train()
        try:
            yield
        finally:
            for layer in layers:
                layer.eval()


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
