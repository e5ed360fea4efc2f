"""The contract between a training method and the loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

from torch import Tensor

from diffalign.config import RunConfig
from diffalign.data.prompts import read_prompts
from diffalign.rewards import Reward
from diffalign.trainers.checks.check import Check
from diffalign.trainers.run import setup
from diffalign.trainers.run.batch import Batch, Record


class Method(ABC):
    """A method has a `Config` of its own and implements `updates_per_batch`, `collect` and `losses`.

    The others have defaults. Nothing of the loop (`BaseTrainer`) is overridden.
    """

    Config: ClassVar[type[RunConfig]]
    args: RunConfig
    rewards: dict[str, Reward]

    @property
    @abstractmethod
    def updates_per_batch(self) -> int:
        """Optimiser steps that one batch is used for."""

    @abstractmethod
    def collect(self, index: int) -> Batch:
        """Batch number `index`: work without a gradient; changes nothing and depends on weights and index alone."""

    @abstractmethod
    def losses(self, batch: Any, number: int, rows: Tensor) -> Iterator[Tensor]:
        """Terms of an update from one micro-batch; each is back-propagated before the next is computed.

        Args:
            batch: the batch, after `prepare`.
            number: of the micro-batch.
            rows: (n,) global samples of this update, over which the terms of all micro-batches average.
        """

    def read(self, source: Sequence[Any] | str | None) -> list[Record]:
        """Training records that the caller gave, or those of the key train_dataset; prompts, unless overridden."""
        return setup.records(read_prompts, source, self.args.train_dataset, self.args.max_train_samples)

    def setup_data(self) -> None:
        """Checks and objects that need no model; errors here cost nothing."""
        return None

    def setup_model(self) -> None:
        """Checks and objects that need the model."""
        return None

    def prepare(self, batch: Any) -> Any:
        """The batch as its updates see it; memory of the method (`state.method`, weight copies) may change here."""
        return batch

    def finish(self, batch: Any) -> None:
        """After the updates of a batch."""
        return None

    def usable(self, batch: Any, rows: Tensor) -> bool:
        """False when an update has nothing to learn from, and is skipped."""
        return True

    def unusable_reason(self, batch: Any) -> str:
        """Why an update was not usable, for the log."""
        return "nothing to learn from"

    def metrics(self, batch: Any, rows: Tensor) -> dict[str, Any]:
        """Numbers of the update just made, for the log; the same on every process."""
        return {}

    def batch_metrics(self, batch: Any) -> dict[str, Any]:
        """Numbers of the batch, for the log line of each of its updates."""
        return {}

    def progress(self, batch: Any) -> dict[str, str]:
        """What the progress bar shows."""
        return {}

    def checks(self, batch: Any) -> Iterable[Check]:
        """What a run has to pass on its first batch before it may train."""
        return ()

    def full_checks(self, batch: Any) -> Iterable[Check]:
        """What `diffalign doctor` looks at beyond `checks`."""
        return ()

    @property
    def needs_reference(self) -> bool:
        """True when the policy before training must stay available."""
        return False

    @property
    def counted_rewards(self) -> list[str]:
        """Names of the rewards that the method optimises."""
        return list(self.rewards)

    def extra_state(self) -> dict[str, Any]:
        """Tensors of the method for checkpoints, in nested dicts and lists."""
        return {}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Put `extra_state` back."""
        return None
