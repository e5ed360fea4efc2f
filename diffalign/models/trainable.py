"""What is trained: a LoRA on the denoiser, or all of it; and the reference policy that either leaves behind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from diffalign.models.adapter import Adapter


def add_lora(
    adapter: Adapter,
    *,
    rank: int,
    alpha: float,
    dropout: float = 0.0,
    targets: Sequence[str] | None = None,
    seed: int = 0,
) -> None:
    """Put a fresh LoRA on the denoiser, as its only trainable weights (fp32); B starts at 0, so nothing changes yet.

    Args:
        adapter: the model.
        rank: LoRA rank.
        alpha: the update is scaled by alpha / rank.
        dropout: LoRA dropout.
        targets: module names; default the family's attention projections.
        seed: seed of A.

    Raises:
        ValueError: targets that match no module, or a LoRA that is there already.
    """
    from peft import LoraConfig

    if getattr(adapter.denoiser, "peft_config", None):
        raise ValueError("the denoiser carries a LoRA already; fuse it first, or continue it with lora_path")
    names = list(targets or adapter.lora_targets)
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=names, init_lora_weights="gaussian"
    )
    devices = [adapter.device] if adapter.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        adapter.denoiser.add_adapter(config)
    for parameter in trainable_parameters(adapter):
        parameter.data = parameter.data.float()


def load_lora(adapter: Adapter, folder: str | Path, *, trainable: bool = True) -> None:
    """Put a saved LoRA on the denoiser; rank and alpha come from its own metadata.

    Raises:
        ValueError: no LoRA file there.
    """
    path = Path(folder)
    if path.is_dir() and not (path / "pytorch_lora_weights.safetensors").is_file():
        raise ValueError(f"{path} holds no pytorch_lora_weights.safetensors")
    adapter.pipeline.load_lora_weights(str(path), adapter_name="default")
    for name, parameter in adapter.denoiser.named_parameters():
        parameter.requires_grad_(trainable and "lora_" in name)
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def train_all(adapter: Adapter) -> None:
    """Make every weight of the denoiser trainable."""
    adapter.denoiser.requires_grad_(True)


def has_lora(adapter: Adapter) -> bool:
    """True when the denoiser carries a LoRA."""
    return bool(getattr(adapter.denoiser, "peft_config", None))


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
        """The reference answers inside, the trained policy after it; also when an exception passes through."""
        if has_lora(self.adapter):
            self.adapter.denoiser.disable_adapters()
            try:
                yield
            finally:
                self.adapter.denoiser.enable_adapters()
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
        adapter: the model; the shadow starts as a copy of what is trained.
    """

    def __init__(self, adapter: Adapter) -> None:
        self.parameters = trainable_parameters(adapter)
        self.weights = [p.detach().clone() for p in self.parameters]

    @contextmanager
    def active(self) -> Iterator[None]:
        """The shadow answers inside, the trained policy after it.

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
        """``shadow <- decay shadow + (1 - decay) policy``; decay 0 copies."""
        for kept, parameter in zip(self.weights, self.parameters, strict=True):
            kept.mul_(decay).add_(parameter.detach(), alpha=1 - decay)

    def equals_policy(self) -> bool:
        """True while the policy has the shadow's very weights, as after `average(0)`."""
        return all(torch.equal(kept, p) for kept, p in zip(self.weights, self.parameters, strict=True))

    def state_dict(self) -> list[Tensor]:
        """CPU copies of the shadow's weights."""
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

    A LoRA becomes `pytorch_lora_weights.safetensors` with its metadata (alpha and rank: without them it would reload at
    another strength), for `pipe.load_lora_weights(folder)`. Full fine-tuning writes the whole pipeline folder.
    """
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    if not has_lora(adapter):
        adapter.pipeline.save_pretrained(path, safe_serialization=True)
        return path
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import get_peft_model_state_dict

    layers = get_peft_model_state_dict(adapter.denoiser)
    if adapter.denoiser_name == "unet":
        layers = convert_state_dict_to_diffusers(layers)
    metadata = _plain(adapter.denoiser.peft_config["default"].to_dict())
    part = adapter.denoiser_name
    type(adapter.pipeline).save_lora_weights(
        str(path), **{f"{part}_lora_layers": layers, f"{part}_lora_adapter_metadata": metadata}
    )
    return path


def _plain(metadata: dict[str, object]) -> dict[str, object]:
    """Sets become sorted lists, so that the metadata is JSON and the same in every run."""
    return {k: sorted(v) if isinstance(v, (set, frozenset)) else v for k, v in metadata.items()}
