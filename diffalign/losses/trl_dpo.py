"""Runs an objective of this package in TRL's ``DPOTrainer``: TRL tokenises, runs both models, logs and saves; only the
loss is replaced.

TRL is not imported: :func:`with_objective` takes its class and returns a subclass. For TRL 1.0 to 1.16, whose trainer
puts the chosen halves before the rejected ones, marks completions by ``completion_mask`` and runs the policy before the
reference.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor

from diffalign.losses.common import keep

# Settings of TRL's own losses, without effect on another objective.
OF_ITS_LOSSES = ("loss_type", "loss_weights", "label_smoothing", "f_divergence_type", "ld_alpha", "use_weighting")


class Pairs(NamedTuple):
    """Inputs of an objective: log-probs of the completion tokens in nats, 0 where ``mask`` is."""

    logp_w: Tensor  # (B, T), of the policy on the chosen completions, with its gradient
    logp_l: Tensor  # (B, T), on the rejected ones
    ref_w: Tensor  # (B, T), of the reference, or (B,), their sums, under TRL's precompute_ref_log_probs
    ref_l: Tensor
    mask_w: Tensor  # (B, T), 1 for tokens of the answer
    mask_l: Tensor

    @property
    def r_w(self) -> Tensor:
        """Summed log-ratios of the chosen completions, ``(B,)``."""
        return _summed(self.logp_w) - _summed(self.ref_w)

    @property
    def r_l(self) -> Tensor:
        """Summed log-ratios of the rejected completions, ``(B,)``."""
        return _summed(self.logp_l) - _summed(self.ref_l)


def _summed(x: Tensor) -> Tensor:
    return x if x.ndim == 1 else x.sum(1)


def token_log_probs(outputs: Any, input_ids: Tensor, mask: Tensor) -> Tensor:
    """Return log-probs of the completion tokens, ``(N, T - 1)`` fp32, 0 elsewhere.

    Args:
        outputs: of the model, with ``log_probs`` (TRL's memory-efficient head) or with ``logits``; virtual tokens
            before ``input_ids`` are left out.
        input_ids: ``(N, T)``.
        mask: ``(N, T - 1)``, 1 where token t + 1 belongs to the completion.

    Raises:
        ValueError: the outputs have neither ``log_probs`` nor ``logits``.
    """
    ready, logits = getattr(outputs, "log_probs", None), getattr(outputs, "logits", None)
    if ready is not None:
        return keep(ready[:, -mask.shape[1] :], mask)
    if logits is None:
        raise ValueError("the model returned neither log_probs nor logits: switch use_liger_kernel off")
    logits = logits[:, -input_ids.shape[1] : -1].float()
    chosen = logits.gather(-1, input_ids[:, 1:, None])[..., 0]
    return keep(chosen - logits.logsumexp(-1), mask)


@contextmanager
def _watched(models: list[Any], inputs: Mapping[str, Tensor]) -> Iterator[list[Tensor]]:
    """Context that collects the log-probs of each forward pass of the models, in order."""
    seen: list[Tensor] = []
    mask = inputs["completion_mask"][:, 1:]

    def note(_model: Any, _args: Any, outputs: Any) -> None:
        seen.append(token_log_probs(outputs, inputs["input_ids"], mask))

    handles = [model.register_forward_hook(note) for model in models]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def pairs(seen: list[Tensor], inputs: Mapping[str, Tensor]) -> Pairs:
    """Return a TRL batch as :class:`Pairs`.

    Args:
        seen: token log-probs ``(2 B, T - 1)`` of the policy, then of the reference unless its sums are in ``inputs``;
            later passes (TRL's logits for metrics) are ignored.
        inputs: TRL's batch: ``completion_mask (2 B, T)``, chosen first; optionally ``ref_chosen_logps (B,)`` and
            ``ref_rejected_logps``.

    Raises:
        ValueError: there were fewer forward passes.
    """
    precomputed = "ref_chosen_logps" in inputs
    if len(seen) < (1 if precomputed else 2):
        raise ValueError(
            f"TRL's trainer ran {len(seen)} forward passes, expected one of the policy and, without "
            "precompute_ref_log_probs, one of the reference; switch use_liger_kernel off"
        )
    logp_w, logp_l = seen[0].chunk(2)
    ref_w, ref_l = (inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]) if precomputed else seen[1].chunk(2)
    mask_w, mask_l = inputs["completion_mask"][:, 1:].bool().chunk(2)
    return Pairs(logp_w, logp_l, ref_w.detach(), ref_l.detach(), mask_w, mask_l)


def check_settings(args: Any) -> None:
    """Reject settings of TRL's own losses, which would have no effect.

    Args:
        args: TRL's ``DPOConfig``.

    Raises:
        ValueError: one of them is not at its default.
    """
    for field in dataclasses.fields(args):
        made = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        if field.name in OF_ITS_LOSSES and getattr(args, field.name) != made:
            given = getattr(args, field.name)
            raise ValueError(f"{field.name}={given!r} belongs to TRL's own losses; leave it at {made!r} here")


def with_objective(trainer: type[Any], objective: Callable[[Pairs], Tensor]) -> type[Any]:
    """Return a subclass of TRL's ``DPOTrainer`` that trains with an objective of this package.

    ``with_objective(trl.DPOTrainer, lambda p: recipes.get("dpo")(p.r_w, p.r_l, beta=0.1))``, is used like that class.
    Its ``beta`` scales the logged rewards only. TRL runs the reference for its metrics also if the objective has none.

    Args:
        trainer: ``trl.DPOTrainer`` or a subclass.
        objective: from :class:`Pairs` to losses of any shape, whose mean is trained.

    Raises:
        ValueError: when the trainer is made, settings of TRL's own losses are not at their defaults; when it trains, a
            mixture of experts has an auxiliary loss, or TRL's forward passes are not as expected.
    """

    class WithObjective(trainer):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            check_settings(self.args)
            if getattr(self, "aux_loss_enabled", False):
                raise ValueError(
                    "the loss that balances experts is not kept: set router_aux_loss_coef=0.0 to go without"
                )

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            models = [self.model] if self.ref_model is None else [self.model, self.ref_model]
            with _watched(models, inputs) as seen:
                found = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            loss = objective(pairs(seen, inputs)).mean()
            return (loss, found[1]) if return_outputs else loss

    WithObjective.__name__ = WithObjective.__qualname__ = f"{trainer.__name__}WithObjective"
    return WithObjective
