"""LoRA on a denoiser: attach, switch, load, save, by what the classes offer.

Most pipelines load and save LoRA themselves (diffusers' loader mixins); a few denoisers do where their pipeline does
not (HunyuanImage); the rest have plain peft (PixArt). Diffusers and peft load the files without this package.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffalign.models.adapter import Adapter
from diffalign.models.files import finish_files
from diffalign.models.lora_fit import by_part, check_fit, check_targets, layers_of

NAME = "default"
"""Of the adapter, in peft's sense, that is trained."""

SAVED = "saved"
"""Of one that is compared with it for a moment."""

WEIGHTS = "pytorch_lora_weights.safetensors"
PEFT_WEIGHTS = "adapter_model.safetensors"


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
        targets: module names, or ends of them; default the family's.
        seed: seed of A.

    Raises:
        ValueError: a target that matches no module or one that can carry no LoRA, or a LoRA that is there already.
    """
    from peft import LoraConfig, inject_adapter_in_model

    if has_lora(adapter):
        raise ValueError("the denoiser carries a LoRA already; fuse it first, or continue it with lora_path")
    names = list(targets or adapter.lora_targets)
    check_targets(adapter.denoiser, names)
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=names, init_lora_weights="gaussian"
    )
    devices = [adapter.device] if adapter.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        if hasattr(adapter.denoiser, "add_adapter"):
            adapter.denoiser.add_adapter(config)
        else:
            inject_adapter_in_model(config, adapter.denoiser)
    _train_only(adapter.denoiser, trainable=True)


def has_lora(adapter: Adapter) -> bool:
    """True when the denoiser carries a LoRA."""
    return bool(getattr(adapter.denoiser, "peft_config", None))


@contextmanager
def without_lora(adapter: Adapter) -> Iterator[None]:
    """The denoiser predicts without its LoRA inside, and with it again after, also when an exception passes through."""
    _switch(adapter.denoiser, on=False)
    try:
        yield
    finally:
        _switch(adapter.denoiser, on=True)


def load_lora(adapter: Adapter, path: str | Path, *, trainable: bool = True) -> None:
    """Put a saved LoRA on the model; rank and alpha come from its own metadata.

    Layers of text encoders are put on them as well, frozen, and saved again with the LoRA.

    Args:
        adapter: the model.
        path: folder with a LoRA file, the file itself, or a hub id.
        trainable: the denoiser's layers go on training.

    Raises:
        ValueError: no LoRA file there, or one made for another model: names the first layer that is in one and not in
            the other.
    """
    source = Path(path)
    if source.is_dir() and not any((source / name).is_file() for name in (WEIGHTS, PEFT_WEIGHTS)):
        raise ValueError(f"{source} holds no {WEIGHTS}")
    if has_lora(adapter):
        raise ValueError("the denoiser carries a LoRA already; fuse it first")
    try:
        with _quiet():
            in_file = _load(adapter, source)
    except (RuntimeError, KeyError, ValueError) as error:  # shapes of another size of model, keys of no known format
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = next((line for line in lines if "size mismatch" in line), lines[0] if lines else type(error).__name__)
        raise ValueError(f"the LoRA {source} does not fit this model: {reason}") from error
    check_fit(adapter, source, in_file)
    for part in _parts(adapter):
        _train_only(getattr(adapter.pipeline, part), trainable=trainable and part == adapter.denoiser_name)
        getattr(adapter.pipeline, part).eval()  # peft turns its dropout on
    adapter.forget_prompts()


@contextmanager
def saved_lora(adapter: Adapter, folder: str | Path) -> Iterator[None]:
    """The denoiser predicts with the LoRA in a folder inside, and with its own after.

    To see whether a file holds what was trained. Prompts that were encoded before keep their encodings.
    """
    denoiser, parts = adapter.denoiser, _parts(adapter)
    trained = {name for name, parameter in denoiser.named_parameters() if parameter.requires_grad}
    with _quiet():
        _load(adapter, Path(folder), SAVED)
    _activate(denoiser, SAVED)
    denoiser.eval()
    try:
        yield
    finally:
        _delete(adapter, SAVED)
        for part in parts:
            _activate(getattr(adapter.pipeline, part), NAME)
        for name, parameter in denoiser.named_parameters():
            parameter.requires_grad_(name in trained)


def save_lora(adapter: Adapter, folder: Path) -> None:
    """Write the LoRA with its metadata: without alpha and rank it would reload at another strength."""
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import get_peft_model_state_dict

    pipeline, denoiser = adapter.pipeline, adapter.denoiser
    if hasattr(pipeline, "save_lora_weights"):
        arguments: dict[str, Any] = {}
        for part in _parts(adapter):
            model = getattr(pipeline, part)
            layers = get_peft_model_state_dict(model)
            if part != "transformer":
                layers = convert_state_dict_to_diffusers(layers)
            arguments[f"{part}_lora_layers"] = layers
            arguments[f"{part}_lora_adapter_metadata"] = _plain(model.peft_config[NAME].to_dict())
        type(pipeline).save_lora_weights(str(folder), **arguments)
    elif hasattr(denoiser, "save_lora_adapter"):
        denoiser.save_lora_adapter(str(folder), adapter_name=NAME)
    else:
        _save_with_peft(denoiser, folder)
    finish_files(folder)


# --- loading ---------------------------------------------------------------------------------------------------------


def _load(adapter: Adapter, source: Path, name: str = NAME) -> dict[str, set[str]]:
    """Load by the first way that the classes offer; returns the layers in the file, by part of the pipeline."""
    pipeline, denoiser, part = adapter.pipeline, adapter.denoiser, adapter.denoiser_name
    if hasattr(pipeline, "load_lora_weights"):
        found = type(pipeline).lora_state_dict(str(source))
        state = found[0] if isinstance(found, tuple) else found
        pipeline.load_lora_weights(str(source), adapter_name=name)
        return by_part(state)
    if hasattr(denoiser, "load_lora_adapter"):
        from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE

        weights = LORA_WEIGHT_NAME_SAFE if source.is_dir() else source.name
        folder = source if source.is_dir() else source.parent
        denoiser.load_lora_adapter(
            str(folder), prefix=None, adapter_name=name, weight_name=weights, use_safetensors=True
        )
        return {part: layers_of(_read(folder / weights))}
    state = _load_with_peft(denoiser, source if source.is_dir() else source.parent, name)
    return {part: layers_of(state)}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the lines that diffusers logs for each part of the pipeline that a file has no layers for."""
    from diffusers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(level)


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


# --- the three ways --------------------------------------------------------------------------------------------------


def _parts(adapter: Adapter) -> list[str]:
    """Parts of the pipeline that carry a LoRA, the denoiser first."""
    names = [adapter.denoiser_name, *adapter.text_encoders()]
    return [name for name in names if getattr(getattr(adapter.pipeline, name), "peft_config", None)]


def _train_only(model: nn.Module, *, trainable: bool) -> None:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trainable and "lora_" in name)
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def _activate(model: Any, name: str) -> None:
    if hasattr(model, "set_adapter"):
        model.set_adapter(name)
        return
    for layer in _tuner_layers(model):
        layer.set_adapter(name)


def _delete(adapter: Adapter, name: str) -> None:
    for model in (adapter.pipeline, adapter.denoiser):
        if hasattr(model, "delete_adapters"):
            model.delete_adapters(name)
            return
    for layer in _tuner_layers(adapter.denoiser):
        layer.delete_adapter(name)
    adapter.denoiser.peft_config.pop(name)


def _tuner_layers(model: nn.Module) -> list[Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [module for module in model.modules() if isinstance(module, BaseTunerLayer)]


def _switch(denoiser: Any, *, on: bool) -> None:
    if hasattr(denoiser, "enable_adapters"):
        denoiser.enable_adapters() if on else denoiser.disable_adapters()
        return
    for layer in _tuner_layers(denoiser):
        layer.enable_adapters(on)


def _save_with_peft(denoiser: Any, folder: Path) -> None:
    """For `PeftModel.from_pretrained(pipe.transformer, folder)`."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    state = get_peft_model_state_dict(denoiser, adapter_name=NAME)
    save_file({f"base_model.model.{name}": value.contiguous() for name, value in state.items()}, folder / PEFT_WEIGHTS)
    denoiser.peft_config[NAME].save_pretrained(str(folder))


def _load_with_peft(denoiser: Any, folder: Path, adapter_name: str) -> dict[str, Tensor]:
    from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict

    config = LoraConfig.from_pretrained(str(folder))
    config.inference_mode = False
    inject_adapter_in_model(config, denoiser, adapter_name)
    state = {name.removeprefix("base_model.model."): value for name, value in _read(folder / PEFT_WEIGHTS).items()}
    set_peft_model_state_dict(denoiser, state, adapter_name=adapter_name)
    return state


def _plain(metadata: dict[str, object]) -> dict[str, object]:
    """Sets become sorted lists, so that the metadata is JSON and the same in every run."""
    return {k: sorted(v) if isinstance(v, (set, frozenset)) else v for k, v in metadata.items()}
