"""`Trainer`: the class of the configured method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffalign.config import RunConfig
from diffalign.trainers.base import BaseTrainer
from diffalign.trainers.registry import completed, trainer_class


class Trainer:
    """The trainer of `args.method`: `Trainer(model=..., args=..., reward_funcs=...)` makes a `BaseTrainer`.

    Args:
        model: a diffusers pipeline, an adapter, or a name, folder or hub id; default as args say.
        args: a method's configuration, a plain `RunConfig`, or a mapping of keys; default all defaults.
        options: other arguments of `BaseTrainer`.

    Raises:
        ValueError: an unknown method or key, or anything that could not train.
    """

    def __new__(  # type: ignore[misc]
        cls, model: Any = None, args: RunConfig | Mapping[str, Any] | None = None, **options: Any
    ) -> BaseTrainer:
        """Choose the class and make one."""
        config = completed(args)
        return trainer_class(config.method)(model, config, **options)
