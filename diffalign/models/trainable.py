"""Trained weights, a LoRA or the whole denoiser, and the policies beside them: the reference and averaged copies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from diffalign.models.adapter import Adapter
from diffalign.models.files import finish_files
from diffalign.models.lora import has_lora, save_lora, without_lora


def train_all(adapter: Adapter) -> None:
    """Make every weight of the denoiser trainable, in fp32: a bf16 weight does not move at usual learning rates."""
    if {adapter.denoiser.dtype, adapter.compute_dtype} & {torch.bfloat16, torch.float16}:
        adapter.cast_denoiser(torch.float32)
    adapter.denoiser.requires_grad_(True)


def trainable_parameters(adapter: Adapter) -> list[nn.Parameter]:
    """The trainable parameters, in a fixed order."""
    return [p for p in adapter.denoiser.parameters() if p.requires_grad]


def trainable_state(adapter: Adapter) -> dict[str, Tensor]:
    """Name -> detached CPU copy of every trainable parameter."""
    named = adapter.denoiser.named_parameters()
    return {name: p.detach().cpu().clone().contiguous() for name, p in named if p.requires_grad}


def load_trainable_state(adapter: Adapter, state: dict[str, Tensor]) -> None:
    """Put `trainable_state` back.

    Raises:
        ValueError: other names or shapes: the state belongs to another model or configuration.
    """
    own = {name: p for name, p in adapter.denoiser.named_parameters() if p.requires_grad}
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    wrong = [n for n in own.keys() & state.keys() if own[n].shape != state[n].shape]
    if missing or extra or wrong:
        raise ValueError(
            "the saved weights belong to another model or configuration: "
            f"missing {missing[:2]}, unexpected {extra[:2]}, of another shape {wrong[:2]}"
        )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(state[name])


class Reference:
    """The policy before training: the adapter switched off, or a CPU copy of the weights under full fine-tuning.

    Args:
        adapter: the model, before its first update.
        needed: False keeps no copy (full fine-tuning without a KL term).
    """

    def __init__(self, adapter: Adapter, *, needed: bool) -> None:
        self.adapter = adapter
        self._copy = trainable_state(adapter) if needed and not has_lora(adapter) else None

    @contextmanager
    def active(self) -> Iterator[None]:
        """The reference predicts inside, the trained policy after it; also when an exception passes through."""
        if has_lora(self.adapter):
            with without_lora(self.adapter):
                yield
            return
        if self._copy is None:
            raise ValueError("no reference was kept: build Reference(adapter, needed=True) before training")
        trained = trainable_state(self.adapter)
        load_trainable_state(self.adapter, self._copy)
        try:
            yield
        finally:
            load_trainable_state(self.adapter, trained)


class WeightCopy:
    """A second set of the trained weights: the policy that sampled, or an average of past ones.

    Works alike for a LoRA (where it is a second adapter's worth of memory) and for all weights.

    Args:
        adapter: the model; the copy starts equal to its trained weights.
    """

    def __init__(self, adapter: Adapter) -> None:
        self.parameters = trainable_parameters(adapter)
        self.weights = [p.detach().clone() for p in self.parameters]

    @contextmanager
    def active(self) -> Iterator[None]:
        """The copy predicts inside, the trained policy after it.

        Weights are exchanged, not copied. No graph of the trained policy may be open: it would go back through the
        wrong weights.
        """
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for i, parameter in enumerate(self.parameters):
            parameter.data, self.weights[i] = self.weights[i], parameter.data

    @torch.no_grad()
    def average(self, decay: float) -> None:
        """``copy <- decay copy + (1 - decay) policy``; decay 0 copies."""
        for kept, parameter in zip(self.weights, self.parameters, strict=True):
            kept.mul_(decay).add_(parameter.detach(), alpha=1 - decay)

    def equals_policy(self) -> bool:
        """True while both have equal weights, as after `average(0)`."""
        return all(torch.equal(kept, p) for kept, p in zip(self.weights, self.parameters, strict=True))

    def state_dict(self) -> list[Tensor]:
        """CPU copies of the weights."""
        return [kept.detach().cpu().clone() for kept in self.weights]

    @torch.no_grad()
    def load_state_dict(self, state: Sequence[Tensor]) -> None:
        """Put `state_dict` back.

        Raises:
            ValueError: another number of weights, or other shapes.
        """
        if [tuple(t.shape) for t in state] != [tuple(kept.shape) for kept in self.weights]:
            raise ValueError(
                f"the saved old policy has {len(state)} weights that do not fit the {len(self.weights)} here"
            )
        for kept, saved in zip(self.weights, state, strict=True):
            kept.copy_(saved)


def save_trained(adapter: Adapter, folder: str | Path) -> Path:
    """Write what was trained in the form diffusers loads.

    A LoRA becomes `pytorch_lora_weights.safetensors` with its metadata, for `pipe.load_lora_weights(folder)`; that of
    PixArt is for peft's `PeftModel.from_pretrained(pipe.transformer, folder)`. Full fine-tuning writes the whole
    pipeline folder.
    """
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    if has_lora(adapter):
        save_lora(adapter, path)
    else:
        adapter.pipeline.save_pretrained(path, safe_serialization=True)
        finish_files(path)
    return path
