"""Prompts and references are embedded once; then the encoders leave the accelerator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from diffalign.models import Adapter
from diffalign.models.prompt_cache import PROMPT_CACHE_BYTES
from diffalign.trainers.checks.check import Check
from diffalign.trainers.run.batch import Record

if TYPE_CHECKING:
    from diffalign.trainers.base import BaseTrainer


def embed_all(policy: Adapter, records: Sequence[Record], negative_prompt: str) -> None:
    """On an accelerator: encode every prompt of the run now, then move the text encoders to the CPU."""
    if policy.device.type == "cpu":
        return
    policy.cache_prompts([negative_prompt], negative=True)
    policy.cache_prompts([str(record["prompt"]) for record in records])
    policy.release_text_encoders()


def embedded_once(trainer: BaseTrainer) -> Check:
    """Collect the same batch once more and count what goes through a text encoder."""
    with _text_calls(trainer) as calls:
        trainer.collect(0)
    total = sum(calls.values())
    named = ", ".join(f"{name} {count}" for name, count in calls.items() if count)
    return Check(
        "prompts and references are embedded once",
        total == 0,
        f"{total} encoder calls in a second rollout of the same prompts" + (f" ({named})" if named else ""),
        f"Each rollout pays for its text again: keep encodings (the policy keeps {PROMPT_CACHE_BYTES >> 30} GiB, "
        "rewards use diffalign.rewards.text_features.TextFeatures).",
    )


def no_encoder_left(policy: Adapter) -> Check:
    """Text encoders are often larger than what is trained."""
    here = {
        name: sum(p.numel() * p.element_size() for p in module.parameters())
        for name, module in policy.text_encoders().items()
        if any(p.device.type == policy.device.type for p in module.parameters())
    }
    passed = policy.device.type == "cpu" or not here
    size = sum(here.values()) / 2**30
    figure = (
        "the run is on the CPU" if policy.device.type == "cpu" else f"{len(here)} on {policy.device}, {size:.3g} GiB"
    )
    return Check(
        "no text encoder is left on the device",
        passed,
        figure,
        "They take memory that the update needs: call release_text_encoders() of the adapter once prompts are encoded.",
    )


@contextmanager
def _text_calls(trainer: BaseTrainer) -> Iterator[dict[str, int]]:
    """Calls of the policy's text encoders, and prompts that the rewards embedded, by name."""
    calls: dict[str, int] = {}
    handles = []
    for name, module in trainer.policy.text_encoders().items():

        def count(*_: Any, name: str = name) -> None:
            calls[name] = calls.get(name, 0) + 1

        handles.append(module.register_forward_hook(count))
    memories = {name: _memories(reward) for name, reward in trainer.rewards.items()}
    before = {name: sum(memory.encoded for memory in found) for name, found in memories.items()}
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()
        for name, found in memories.items():
            calls[f"reward {name}"] = sum(memory.encoded for memory in found) - before[name]


def _memories(reward: Any) -> list[Any]:
    """The reward's memories of embedded texts or references: attributes that count what they `encoded`."""
    return [value for value in vars(reward).values() if isinstance(getattr(value, "encoded", None), int)]
