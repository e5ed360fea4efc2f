"""The options that name a model, and the policy that they load."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from diffalign.commands._options import expanded_path, find_device, positive

if TYPE_CHECKING:
    from diffalign.models import Adapter

DTYPES = ("float32", "bfloat16", "float16")


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Adds the model, its LoRA, and where and how it runs."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model", "--pretrained_model_name_or_path", default="shapes-flow", type=expanded_path,
        metavar="NAME|FOLDER|HUB_ID",
        help="shipped checkpoint name, diffusers folder (also what full fine-tuning saved), or hub id",
    )  # fmt: skip
    group.add_argument(
        "--lora",
        type=expanded_path,
        metavar="FOLDER",
        help="folder with pytorch_lora_weights.safetensors (a run folder)",
    )
    group.add_argument("--revision", help="hub revision of the model")
    group.add_argument("--variant", help="weight variant of the model, for example fp16")
    group.add_argument("--resolution", type=positive, help="image height and width in pixels; else the pipeline's own")
    group.add_argument("--max_sequence_length", type=positive, help="T5 tokens; else the family's own")
    group.add_argument("--dtype", choices=DTYPES, default="float32", help="dtype of the weights")
    group.add_argument("--device", help="where to run; a GPU if there is one, else the CPU")


def load_model(args: argparse.Namespace, *, lora: str | None) -> Adapter:
    """The policy that the options name.

    Args:
        args: parsed options of `add_model_options`.
        lora: folder of a LoRA to put on it, or None.

    Raises:
        ValueError: nothing of this name, an unsuitable option, or no LoRA in the folder.
    """
    import torch

    from diffalign.models import load_lora, load_policy

    if lora is not None and not Path(lora).exists():
        raise ValueError(f"--lora {lora}: no such folder; give one that holds pytorch_lora_weights.safetensors")
    policy = load_policy(
        args.model,
        revision=args.revision,
        variant=args.variant,
        resolution=args.resolution,
        max_sequence_length=args.max_sequence_length,
        dtype=getattr(torch, args.dtype),
        device=find_device(args.device),
    )
    if lora is not None:
        load_lora(policy, lora, trainable=False)
    return policy
