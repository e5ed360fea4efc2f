"""The saved weights give the same images when diffusers loads them."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffalign.models import has_lora, save_trained, trainable_state
from diffalign.sampling import rollout
from diffalign.trainers.checks.check import Check
from diffalign.trainers.checks.dry_run import restored_after
from diffalign.trainers.run.evaluation import decoded, evaluation_plan

if TYPE_CHECKING:
    from diffalign.trainers.base import BaseTrainer

NAME, STEPS, AMOUNT = "reloaded", 2, 0.05
"""Name of the second adapter; ODE steps of the pictures; how far the weights are moved before they are saved."""


def reload(trainer: BaseTrainer) -> Check:
    """Disturb the weights, save them, load the file beside them and compare; everything is put back."""
    with restored_after(trainer), tempfile.TemporaryDirectory() as folder:
        untouched = _pictures(trainer)
        _disturb(trainer)
        save_trained(trainer.policy, folder)
        if not has_lora(trainer.policy):
            return _same_weights(trainer, Path(folder))
        ours = _pictures(trainer)
        with _loaded(trainer, folder):
            theirs = _pictures(trainer)
    effect, gap = float((ours - untouched).abs().max()), float((ours - theirs).abs().max())
    limit = effect * (0.01 if trainer.args.mixed_precision == "no" else 0.1)
    return Check(
        "the saved LoRA reloads to the same images",
        0 < effect and gap <= limit,
        f"images differ by {gap:.2g} at most; the LoRA changes them by {effect:.2g}",
        "diffusers would show another model than was trained: rank, alpha or names are lost on the way to the file.",
    )


def _same_weights(trainer: BaseTrainer, folder: Path) -> Check:
    """All weights are trained: a second model may not fit beside the first, so tensors are compared on the CPU."""
    policy = trainer.policy
    again = type(policy.denoiser).from_pretrained(folder / policy.denoiser_name).state_dict()
    ours = trainable_state(policy)
    wrong = [name for name, value in ours.items() if name not in again or not torch.equal(value, again[name])]
    return Check(
        "the saved model reloads with the same weights",
        not wrong,
        f"{len(wrong)} of {len(ours)} tensors differ" + (f" (first: {wrong[0]})" if wrong else ""),
        "diffusers would load another model than was trained: compare dtype and names in the saved folder.",
    )


@torch.no_grad()
def _disturb(trainer: BaseTrainer) -> None:
    """A fresh LoRA does nothing, so that a lost one would not be missed."""
    generator = torch.Generator().manual_seed(0)
    for parameter in trainer.parameters:
        parameter.add_(AMOUNT * torch.randn(parameter.shape, generator=generator).to(parameter))


@contextmanager
def _loaded(trainer: BaseTrainer, folder: str) -> Iterator[None]:
    """The LoRA in the folder answers inside, as a second adapter."""
    policy = trainer.policy
    trained = {name for name, p in policy.denoiser.named_parameters() if p.requires_grad}
    with _quiet():
        policy.pipeline.load_lora_weights(folder, adapter_name=NAME)
    policy.denoiser.set_adapter(NAME)
    policy.denoiser.eval()  # peft turns its dropout on
    try:
        yield
    finally:
        policy.denoiser.set_adapter("default")
        policy.denoiser.delete_adapters(NAME)
        for name, parameter in policy.denoiser.named_parameters():
            parameter.requires_grad_(name in trained)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings that a second adapter, and a LoRA without text encoders, are answered with."""
    from diffusers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        logging.set_verbosity(level)


@torch.no_grad()
def _pictures(trainer: BaseTrainer) -> Tensor:
    """(2, 3, H, W) images of the first training prompts."""
    plan = evaluation_plan(trainer.policy.schedule(STEPS), 1.0)
    prompts = [record["prompt"] for record in trainer.records[:2]]
    return decoded(rollout(trainer.policy, plan, prompts, list(range(len(prompts))))).float().cpu()
