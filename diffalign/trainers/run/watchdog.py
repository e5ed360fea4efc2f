"""The held-out watchdog of a run: measures beside the rewards, and what an alarm does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from diffalign.evaluation.watchdog import Alarm, Reading, Watch, clipped_share, high_frequency_share, saturation, spread
from diffalign.rewards import FunctionReward, GroupReward, Reward, broadcast

POINTWISE = {"high_frequency": high_frequency_share, "saturation": saturation, "clipped": clipped_share}
PREFIX = "watch/"
IMAGES = 2
"""Images per prompt, the fewest whose diversity can be measured."""


class Watchdog:
    """Looks at every evaluation while a run trains.

    Args:
        mode: off, flag or stop.
        trained: names of the rewards that are optimised.
        evaluated: names of the rewards that are measured. Without one that is not trained there is nothing to compare.
        eval_steps: optimiser steps between evaluations; 0 = none.

    Attributes:
        active: whether it looks at all.
        stop: True once reward hacking was found and the run is to end (mode = stop).
    """

    def __init__(self, mode: str, trained: Sequence[str], evaluated: Sequence[str], eval_steps: int) -> None:
        held_out = [name for name in evaluated if name not in trained]
        self.mode = mode
        self.active = mode != "off" and bool(held_out) and eval_steps > 0
        self.measures: dict[str, Reward] = measures() if self.active else {}
        self.watch = Watch(list(trained), held_out, list(self.measures))
        self.stop = False

    def observe(self, prompts: Sequence[Mapping[str, Any]], step: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Take in the per-prompt scores of an evaluation.

        Returns:
            Numbers for its line in the log, and a warning line for each alarm.
        """
        if not self.active:
            return {}, []
        names = [*self.watch.trained, *self.watch.held_out, *self.measures]
        scores = {name: _column(prompts, name) for name in names}
        alarms = self.watch.observe(Reading(step, scores))
        self.stop = self.stop or (bool(alarms) and self.mode == "stop")
        means = {name: scores[name].double().nanmean() for name in self.measures}
        warnings = [{"message": self._text(alarm), "watchdog": alarm.held_out} for alarm in alarms]
        return means | {f"{PREFIX}alarms": len(alarms)}, warnings

    def _text(self, alarm: Alarm) -> str:
        end = "the run ends here" if self.mode == "stop" else "watchdog: stop would end it here"
        return f"watchdog: since step {alarm.since} {alarm.text}. This indicates reward hacking; {end}"


def measures() -> dict[str, Reward]:
    """What is measured of the pictures themselves, as rewards that nobody trains on."""
    alone = [FunctionReward(_images_only(function), name=f"{PREFIX}{name}") for name, function in POINTWISE.items()]
    together = GroupReward(lambda images, *_: spread(images), name=f"{PREFIX}diversity", credit=broadcast)
    return {reward.name: reward for reward in (*alone, together)}


def _images_only(function: Any) -> Any:
    def measure(images: Tensor, prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]]) -> Tensor:
        value: Tensor = function(images)
        return value

    return measure


def _column(prompts: Sequence[Mapping[str, Any]], name: str) -> Tensor:
    values = [prompt["rewards"][name] for prompt in prompts]
    return torch.tensor([float("nan") if value is None else value for value in values])
