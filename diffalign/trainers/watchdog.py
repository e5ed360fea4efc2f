"""The held-out watchdog of a run: what it measures beside the rewards, and what it does when the rule speaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diffalign.evaluation.watchdog import Alarm, Reading, Watch, clipped_share, high_frequency_share, saturation, spread
from diffalign.rewards import FunctionReward, GroupReward, Reward, broadcast

if TYPE_CHECKING:
    from diffalign.trainers.base import BaseTrainer

POINTWISE = {"high_frequency": high_frequency_share, "saturation": saturation, "clipped": clipped_share}
PREFIX = "watch/"
IMAGES = 2
"""Images per prompt, the fewest that tell whether they differ."""


class Watchdog:
    """Looks at every evaluation while a run trains.

    Args:
        trainer: the run. Without rewards that are measured and not trained there is nothing to hold it against.

    Attributes:
        active: whether it looks at all.
        stop: True once the rule has spoken and the run is to end (watchdog = stop).
    """

    def __init__(self, trainer: BaseTrainer) -> None:
        self.trainer = trainer
        trained = list(trainer.combination.weights)
        held_out = [name for name in trainer.eval_rewards if name not in trained]
        self.active = trainer.args.watchdog != "off" and bool(held_out) and trainer.args.eval_steps > 0
        self.measures: dict[str, Reward] = measures() if self.active else {}
        self.watch = Watch(trained, held_out, list(self.measures))
        self.stop = False

    def observe(self, prompts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Take in the per-prompt scores of an evaluation; the numbers for its line in the log.

        Alarms become warnings in the log, and the end of the run where that was asked for.
        """
        if not self.active:
            return {}
        names = [*self.watch.trained, *self.watch.held_out, *self.measures]
        scores = {name: _column(prompts, name) for name in names}
        step = self.trainer.state.step
        alarms = self.watch.observe(Reading(step, scores))
        for alarm in alarms:
            self.trainer.log.write("warning", step, {"message": self._text(alarm), "watchdog": alarm.held_out})
        self.stop = self.stop or (bool(alarms) and self.trainer.args.watchdog == "stop")
        self.trainer.state.watchdog = self.watch.state_dict()
        means = {name: scores[name].double().nanmean() for name in self.measures}
        return means | {f"{PREFIX}alarms": len(alarms)}

    def resume(self) -> None:
        """Go on from the evaluations before a checkpoint."""
        self.watch.load_state_dict(self.trainer.state.watchdog)

    def _text(self, alarm: Alarm) -> str:
        end = "the run ends here" if self.trainer.args.watchdog == "stop" else "watchdog: stop would end it here"
        return f"watchdog: since step {alarm.since} {alarm.text}. What is rewarded is no longer what is wanted; {end}"


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
