"""Is a run still getting better, or only better at its reward? Measures of images, and the rule that tells.

The rule compares evaluations of the same prompts and seeds, prompt by prompt. A run is said to part from its held-out
reward when, since the evaluation at which that reward stood highest, the trained reward has risen beyond doubt and the
held-out one has fallen: beyond doubt, or by less while the pictures themselves have changed (their fine detail,
saturation, clipping, or how much the images of a prompt differ). A trained reward that falls along with
the held-out one is instability, not this; a held-out reward that is noisy does not fall beyond doubt.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in brightness (ITU-R BT.601)."""


def high_frequency_share(images: Tensor) -> Tensor:
    """(B,) share of the brightness' spectral energy above half the highest frequency, the mean left out; in [0, 1].

    Grids, noise and over-sharpening raise it, washed-out pictures lower it. A picture of one brightness has 0.

    Args:
        images: (B, 3, H, W) in [0, 1].
    """
    weights = torch.tensor(LUMA, dtype=images.dtype, device=images.device)
    luma = torch.einsum("bchw,c->bhw", images, weights)
    luma = luma - luma.mean((1, 2), keepdim=True)
    energy = torch.fft.fft2(luma.double()).abs().square()
    rows, columns = (torch.fft.fftfreq(n, device=images.device).abs() for n in energy.shape[1:])
    high = torch.maximum(rows[:, None], columns[None, :]) > 0.25  # cycles per pixel; 0.5 is the highest there is
    total = energy.sum((1, 2))
    floor = 1e-12 * luma[0].numel() ** 2
    return torch.where(total > floor, (energy * high).sum((1, 2)) / total.clamp_min(floor), 0.0).float()


def saturation(images: Tensor) -> Tensor:
    """(B,) mean of (max - min) / max over the channels of each pixel (HSV saturation), black counting 0; in [0, 1].

    Args:
        images: (B, 3, H, W) in [0, 1].
    """
    high, low = images.amax(1), images.amin(1)
    return ((high - low) / high.clamp_min(1e-6)).mean((1, 2)).float()


def clipped_share(images: Tensor) -> Tensor:
    """(B,) share of channel values that 8 bits show as the darkest or brightest there is; in [0, 1].

    Args:
        images: (B, 3, H, W) in [0, 1].
    """
    return ((images < 0.5 / 255) | (images > 254.5 / 255)).float().mean((1, 2, 3))


def spread(images: Tensor) -> Tensor:
    """() root-mean-square difference of two images of a prompt, the mean over all pairs; 0 for one image.

    Args:
        images: (G, 3, H, W) in [0, 1], all of one prompt.
    """
    flat = images.flatten(1).double()
    first, second = torch.triu_indices(len(flat), len(flat), 1, device=flat.device)
    if not len(first):
        return torch.zeros((), device=images.device)
    return (flat[first] - flat[second]).square().mean(1).sqrt().mean().float()


@dataclass(frozen=True)
class Limits:
    """When a change counts.

    Attributes:
        rise: standard errors by which the trained reward must have risen.
        fall: standard errors by which a held-out reward must have fallen, or
        lean: those by which it must have fallen while the pictures have changed, which is:
        change: share of its value by which one of their measures must have moved, and
        certain: its standard errors.
        patience: evaluations in a row that must say so.
    """

    rise: float = 2.0
    fall: float = 2.0
    lean: float = 1.0
    change: float = 0.02
    certain: float = 4.0
    patience: int = 2


@dataclass(frozen=True)
class Reading:
    """One evaluation.

    Attributes:
        step: optimiser step.
        scores: reward or measure -> (P,) means of each prompt, NaN where nothing could be scored.
    """

    step: int
    scores: Mapping[str, Tensor]


@dataclass(frozen=True)
class Alarm:
    """What the rule says.

    Attributes:
        held_out: the reward that the run has parted from.
        since: step of the evaluation at which it stood highest.
        text: the figures.
    """

    held_out: str
    since: int
    text: str


def paired(now: Tensor, then: Tensor) -> tuple[float, float]:
    """(mean, standard errors) of the change of (P,) values, prompt by prompt; NaN prompts are left out.

    Standard errors are inf for a change without any spread, 0 for no change.
    """
    difference = (now.double() - then.double())[~(now.isnan() | then.isnan())]
    if len(difference) < 2:
        return 0.0, 0.0
    mean = float(difference.mean())
    error = float(difference.std()) / math.sqrt(len(difference))
    if error == 0:
        return mean, math.copysign(math.inf, mean) if mean else 0.0
    return mean, mean / error


@dataclass
class Watch:
    """The rule over a run's evaluations.

    Args:
        trained: names of the rewards that are trained; one of them has to rise.
        held_out: names of those that are not.
        measures: names of the measures of pictures.
        limits: when a change counts.

    Attributes:
        best: held-out reward -> the evaluation at which it stood highest.
        strikes: held-out reward -> evaluations in a row that spoke against it.
    """

    trained: Sequence[str]
    held_out: Sequence[str]
    measures: Sequence[str]
    limits: Limits = field(default_factory=Limits)
    best: dict[str, Reading] = field(default_factory=dict)
    strikes: dict[str, int] = field(default_factory=dict)

    def observe(self, reading: Reading) -> list[Alarm]:
        """Take in one evaluation; the alarms that it raises."""
        alarms = []
        for name in self.held_out:
            if name not in self.best or _mean(reading.scores[name]) > _mean(self.best[name].scores[name]):
                self.best[name], self.strikes[name] = reading, 0
                continue
            reasons = self._reasons(name, reading)
            self.strikes[name] = self.strikes[name] + 1 if reasons else 0
            if self.strikes[name] >= self.limits.patience:
                alarms.append(Alarm(name, self.best[name].step, "; ".join(reasons)))
        return alarms

    def _reasons(self, name: str, now: Reading) -> list[str]:
        """Why this evaluation speaks against the run; empty when it does not."""
        then, limits = self.best[name], self.limits
        rises = {t: paired(now.scores[t], then.scores[t]) for t in self.trained}
        risen = {t: change for t, (change, errors) in rises.items() if errors >= limits.rise}
        if not risen:
            return []
        fall, errors = paired(now.scores[name], then.scores[name])
        changed = self._changed(now, then)
        if errors > -(limits.lean if changed else limits.fall):
            return []
        up = [f"{t} rose by {change:.3g}" for t, change in risen.items()]
        down = f"{name} fell by {-fall:.3g} ({-errors:.1f} standard errors)"
        return [*up, down, *changed]

    def _changed(self, now: Reading, then: Reading) -> list[str]:
        out = []
        for name in self.measures:
            change, errors = paired(now.scores[name], then.scores[name])
            before = _mean(then.scores[name])
            if abs(errors) >= self.limits.certain and abs(change) >= self.limits.change * abs(before):
                out.append(f"{name} went from {before:.3g} to {before + change:.3g}")
        return out

    def state_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        best = {
            name: {"step": r.step, "scores": {key: values.tolist() for key, values in r.scores.items()}}
            for name, r in self.best.items()
        }
        return {"best": _nan_to_none(best), "strikes": dict(self.strikes)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put `state_dict` back."""
        self.best = {
            name: Reading(r["step"], {key: _tensor(values) for key, values in r["scores"].items()})
            for name, r in state.get("best", {}).items()
        }
        self.strikes = dict(state.get("strikes", {}))


def _mean(values: Tensor) -> float:
    return float(values.double().nanmean())


def _tensor(values: Sequence[float | None]) -> Tensor:
    return torch.tensor([math.nan if value is None else value for value in values])


def _nan_to_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _nan_to_none(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_nan_to_none(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value
