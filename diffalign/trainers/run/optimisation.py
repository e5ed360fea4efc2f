"""AdamW, its schedule, the gradient over all processes, and the step that a non-finite number skips."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from diffalign.config import RunConfig


@dataclass
class StepResult:
    """What an update did.

    Attributes:
        grad_norm: norm of the global gradient before clipping; NaN or inf when the step was skipped for it.
        broken: indices of the parameters with a non-finite gradient.
        bad_losses: terms of the loss, over all processes, that were not finite.
        made: False when nothing was changed, for one of these reasons or because there was nothing to learn from.
    """

    grad_norm: float
    broken: tuple[int, ...] = ()
    bad_losses: int = 0
    made: bool = True


class Optimisation:
    """Owns the optimiser of the trainable parameters.

    The gradient is summed over processes by hand: every micro-batch is weighted by its share of the whole update, so
    any split over any number of processes gives the same sum.

    Args:
        parameters: what is trained.
        config: the run configuration.
        total_steps: steps the learning-rate schedule is laid out for.
        accelerator: the processes.
    """

    def __init__(
        self, parameters: list[nn.Parameter], config: RunConfig, total_steps: int, accelerator: Accelerator
    ) -> None:
        from diffusers.optimization import get_scheduler

        self.parameters = parameters
        self.accelerator = accelerator
        self.max_grad_norm = config.max_grad_norm
        self.optimizer = torch.optim.AdamW(
            parameters,
            lr=config.learning_rate,
            betas=(config.adam_beta1, config.adam_beta2),
            weight_decay=config.adam_weight_decay,
            eps=config.adam_epsilon,
        )
        self.schedule: Any = get_scheduler(
            config.lr_scheduler, self.optimizer, num_warmup_steps=config.lr_warmup_steps, num_training_steps=total_steps
        )
        self._bad_losses = torch.zeros((), device=accelerator.device)
        half = config.mixed_precision == "fp16"
        self.scaler = torch.amp.GradScaler(accelerator.device.type, enabled=half and accelerator.device.type == "cuda")

    @property
    def learning_rate(self) -> float:
        """The present learning rate."""
        return float(self.schedule.get_last_lr()[0])

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradient of one term of the update."""
        self._bad_losses += ~torch.isfinite(loss.detach())
        self.scaler.scale(loss).backward()

    def step(self) -> StepResult:
        """Sum gradients over processes, clip, update; skip if anything is not finite (all processes decide alike)."""
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self._sum_over_processes()
        self.scaler.unscale_(self.optimizer)  # after the sum, so that each process sees the same overflow
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        bad, finite = int(self._bad_losses), bool(torch.isfinite(norm))
        made = finite and not bad
        broken = () if finite else self._broken()
        if made:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.max_grad_norm, norm)
            self.optimizer.step()
            self.schedule.step()
        self.scaler.update()
        self._clear()
        return StepResult(float(norm), broken, bad, made)

    def skip_step(self) -> StepResult:
        """In place of a step that has nothing to learn from: momentum alone must not move the weights."""
        self._clear()
        return StepResult(math.nan, made=False)

    def _clear(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self._bad_losses.zero_()

    def _broken(self) -> tuple[int, ...]:
        pairs = enumerate(self.parameters)
        found = tuple(i for i, p in pairs if p.grad is not None and not bool(torch.isfinite(p.grad).all()))
        return found or tuple(range(len(self.parameters)))  # each finite, but their norm overflows

    def _sum_over_processes(self) -> None:
        if self.accelerator.num_processes == 1:
            return
        grads = [p.grad for p in self.parameters if p.grad is not None]
        bad = self._bad_losses.to(grads[0].dtype).reshape(1)
        flat = self.accelerator.reduce(torch.cat([*(g.flatten() for g in grads), bad]), reduction="sum")
        self._bad_losses.copy_(flat[-1])
        offset = 0
        for grad in grads:
            grad.copy_(flat[offset : offset + grad.numel()].view_as(grad))
            offset += grad.numel()

    def state_dict(self) -> dict[str, Any]:
        """Optimiser, schedule and loss-scale states."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put `state_dict` back."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self._set_rates()
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])

    def _set_rates(self) -> None:
        """The rate of the present step by the present schedule: a run that was extended goes on where it now is."""
        rates = [
            base * rule(self.schedule.last_epoch)
            for base, rule in zip(self.schedule.base_lrs, self.schedule.lr_lambdas, strict=True)
        ]
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self.schedule._last_lr = rates
