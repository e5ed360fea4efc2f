"""Does a LoRA fit a model? Layers of the file against layers of the model, and target names against modules."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from diffalign.models.adapter import Adapter
from diffalign.naming import nearest

_SUFFIX = re.compile(r"(\.lora_|\.lora\.|\.lokr_|\.alpha$|\.dora_scale$).*")
"""What follows the module's name in the key of a LoRA file."""


def check_targets(denoiser: nn.Module, targets: Sequence[str]) -> None:
    """Every target is a module's name or the end of one.

    Raises:
        ValueError: those that match nothing, each with the nearest name.
    """
    names = [name for name, _ in denoiser.named_modules() if name]
    ends = {".".join(name.split(".")[-depth:]) for name in names for depth in (1, 2, 3)}
    lost = [target for target in targets if not any(n == target or n.endswith(f".{target}") for n in names)]
    if lost:
        named = ", ".join(f"`{target}`{nearest(target, ends)}" for target in lost)
        raise ValueError(f"lora_target_modules that match no module of {type(denoiser).__name__}: {named}")


def check_fit(adapter: Adapter, source: Path, in_file: dict[str, set[str]]) -> None:
    """Every layer of the file is on the model, and every layer on the model was in the file."""
    for part in [adapter.denoiser_name, *sorted(set(in_file) - {adapter.denoiser_name})]:
        model = getattr(adapter.pipeline, part, None)
        difference = _difference(part, model, in_file)
        if difference:
            for owner, unload in ((adapter.pipeline, "unload_lora_weights"), (adapter.denoiser, "unload_lora")):
                if hasattr(owner, unload):
                    getattr(owner, unload)()
            raise ValueError(f"the LoRA {source} does not fit this model: {difference}")
    weights = [p for name, p in adapter.denoiser.named_parameters() if "lora_B" in name]
    if not any(bool(p.any()) for p in weights):
        warnings.warn(f"the LoRA {source} is a fresh one: its B is zero, so it changes nothing", stacklevel=3)


def _difference(part: str, model: Any, in_file: dict[str, set[str]]) -> str | None:
    """The first layer that is in the file or on a part of the model, and not on the other."""
    if model is None:
        return f"it has layers of {part}, which this pipeline has not"
    name, given, on_model = f"{part} ({type(model).__name__})", in_file.get(part, set()), _carrying(model)
    if not given:
        first = next((f"{other}.{min(layers)}" for other, layers in sorted(in_file.items()) if layers), "none")
        return f"it has no layers of {name}; its first is {first}"
    extra, missing = sorted(given - on_model), sorted(on_model - given)
    if extra:
        return f"{len(extra)} of its layers are not in {name}; the first is {extra[0]}"
    return f"{len(missing)} layers of {name} are not in it; the first is {missing[0]}" if missing else None


def by_part(state: Iterable[str]) -> dict[str, set[str]]:
    """Layers of a LoRA file by the part of the pipeline that its keys start with."""
    keys: dict[str, list[str]] = {}
    for key in state:
        part, _, rest = key.partition(".")
        keys.setdefault(part, []).append(rest)
    return {part: layers for part, rest in keys.items() if (layers := layers_of(rest))}


def layers_of(keys: Iterable[str]) -> set[str]:
    """Names of the modules that keys of a LoRA file belong to; CLIP's wrapper has come and gone with the versions."""
    listed = list(keys)
    if any(".processor." in key for key in listed):  # what diffusers makes of kohya's files
        from diffusers.utils import convert_unet_state_dict_to_peft

        listed = list(convert_unet_state_dict_to_peft(dict.fromkeys(listed)))
    return {_SUFFIX.sub("", key).replace("text_model.", "") for key in listed if _SUFFIX.search(key)}


def _carrying(model: Any) -> set[str]:
    """Names of the modules that carry a LoRA."""
    return set() if model is None else layers_of(name for name, _ in model.named_parameters())
