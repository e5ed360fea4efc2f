"""The configuration of a run folder or one of its checkpoints, and the weights in it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

if TYPE_CHECKING:
    from diffalign.models import Adapter

LORA_FILE, PIPELINE_FILE, CHECKPOINT_FILES = (
    "pytorch_lora_weights.safetensors",
    "model_index.json",
    ("weights.safetensors", "state.json"),
)
MODEL_KEYS = {
    "model": "pretrained_model_name_or_path",
    "revision": "revision",
    "variant": "variant",
    "resolution": "resolution",
    "max_sequence_length": "max_sequence_length",
    "negative_prompt": "negative_prompt",
}
"""Option -> configuration key, for what names a model and its call."""


class Run(NamedTuple):
    """A run of `diffalign train`.

    Attributes:
        source: the file that the configuration was read from.
        config: its keys and values, as they are there.
        checkpoint: the checkpoint folder, where one was named.
        folder: the run folder.
    """

    source: Path
    config: dict[str, Any]
    checkpoint: Path | None
    folder: Path

    @property
    def trains_lora(self) -> bool:
        """False for full fine-tuning."""
        return self.config.get("lora_r") != 0


def find_run(name: str | None) -> Run | None:
    """The run that a run folder or a checkpoint folder belongs to; None for anything else.

    Raises:
        ValueError: a broken configuration file.
    """
    path = Path(name) if name else None
    if path is None or not path.is_dir():
        return None
    if all((path / file).is_file() for file in CHECKPOINT_FILES):
        source = path / CHECKPOINT_FILES[1]
        config = _read(source).get("config")
        return Run(source, dict(config or {}), path, path.resolve().parent)
    source = path / "config.yaml"
    config = _read(source) if source.is_file() else {}
    return Run(source, config, None, path) if "pretrained_model_name_or_path" in config else None


def _read(path: Path) -> dict[str, Any]:
    """A mapping in YAML, of which JSON is a part."""
    text = path.read_text(encoding="utf-8-sig")
    try:
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (json.JSONDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    return content if isinstance(content, dict) else {}


def named_run(args: argparse.Namespace) -> Run | None:
    """The run that `--lora` or else `--model` names, once it is known to hold weights of that kind.

    Raises:
        ValueError: a LoRA given as a model or a model as a LoRA, or a run without weights.
    """
    lora, model = find_run(args.lora), find_run(args.model)
    if args.lora and not Path(args.lora).exists():
        raise ValueError(f"--lora {args.lora}: no such folder; give a run folder, a checkpoint or a folder of a LoRA")
    if lora is not None and not lora.trains_lora:
        raise ValueError(f"{args.lora} trained all weights, no LoRA: give it as --model {args.lora}")
    if model is not None and model.trains_lora and not (model.folder / PIPELINE_FILE).is_file():
        raise ValueError(f"{args.model} trained a LoRA: give it as --lora {args.model}")
    for run, file in ((lora, LORA_FILE), (model, PIPELINE_FILE)):
        if run is not None and run.checkpoint is None and not (run.folder / file).is_file():
            from diffalign.trainers.run.checkpoints import latest_checkpoint

            last = latest_checkpoint(run.folder)
            hint = f"name its last checkpoint, {last}" if last else "it has no checkpoint either"
            raise ValueError(f"{run.folder} holds no {file}: the run did not finish; {hint}")
    return lora or model


def fill_from_run(args: argparse.Namespace, run: Run | None, keys: Mapping[str, str | Iterable[str]]) -> None:
    """Give options that were not given the values of the run, and print which.

    Args:
        args: parsed options; None stands for "not given".
        run: the run, or None.
        keys: option -> configuration key, or several of which the first that is set counts.
    """
    if run is None:
        return
    taken = []
    for option, names in keys.items():
        values = (run.config.get(name) for name in ([names] if isinstance(names, str) else names))
        value = next((value for value in values if value not in (None, [], {})), None)
        if option == "model" and run.checkpoint is not None and not run.trains_lora:
            args.model = None  # the checkpoint was named by --model; its base is in the configuration
        if getattr(args, option) is None and value is not None:
            setattr(args, option, value)
            taken += [f"{option} {_words(value)}"] if value != "" else []
    if taken:
        print(f"from {run.source}: {', '.join(taken)}", flush=True)


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def load_checkpoint_weights(policy: Adapter, run: Run) -> None:
    """Put the trained weights of a checkpoint on its base model: their average, where the run keeps one.

    Raises:
        ValueError: a damaged checkpoint, or one of another model.
    """
    import torch

    from diffalign.models import add_lora, load_trainable_state, train_all, trainable_parameters
    from diffalign.trainers.run.checkpoints import load_checkpoint

    if run.checkpoint is None:
        raise ValueError(f"{run.folder} is no checkpoint")
    weights, tensors, _ = load_checkpoint(run.checkpoint)
    if run.trains_lora:
        config = run.config
        add_lora(
            policy, rank=config["lora_r"], alpha=config["lora_alpha"], targets=config.get("lora_target_modules") or None
        )
    else:
        train_all(policy)
    load_trainable_state(policy, weights)
    parameters = trainable_parameters(policy)
    averages = tensors.get("ema", {}).get("shadow_params", [])
    with torch.no_grad():
        for parameter, average in zip(parameters, averages, strict=bool(averages)):
            parameter.copy_(average)
    for parameter in parameters:
        parameter.requires_grad_(False)
    policy.denoiser.eval()
