"""The options that name a model, and the policy that they load."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from diffalign.commands._options import expanded_path, find_device, positive
from diffalign.commands._runs import Run, load_checkpoint_weights

if TYPE_CHECKING:
    from diffalign.models import Adapter

DTYPES = ("float32", "bfloat16", "float16")
MODEL = "shapes-flow"
"""Default where neither an option nor a run names a model."""


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Adds the model, its LoRA, and where and how it runs."""
    group = parser.add_argument_group("model (what is not given comes from the run of --lora or --model)")
    group.add_argument(
        "--model", "--pretrained_model_name_or_path", type=expanded_path, metavar="NAME|FOLDER|HUB_ID",
        help=f"shipped checkpoint, diffusers folder, hub id, or a run of full fine-tuning or its checkpoint [{MODEL}]",
    )  # fmt: skip
    group.add_argument(
        "--lora", type=expanded_path, metavar="FOLDER",
        help="run folder, checkpoint folder, or any folder with pytorch_lora_weights.safetensors",
    )  # fmt: skip
    group.add_argument("--revision", help="hub revision of the model")
    group.add_argument("--variant", help="weight variant of the model, for example fp16")
    group.add_argument("--resolution", type=positive, help="image height and width in pixels [the pipeline's own]")
    group.add_argument("--max_sequence_length", type=positive, help="T5 tokens [the family's own]")
    group.add_argument("--dtype", choices=DTYPES, default="float32", help="dtype of the weights")
    group.add_argument("--device", help="where to run [a CUDA GPU if there is one, else the CPU]")


def load_model(args: argparse.Namespace, run: Run | None, *, base: bool = False) -> Adapter:
    """The policy that the options name.

    Args:
        args: options of `add_model_options`, after `fill_from_run`.
        run: the run that they name, if it is one.
        base: load what the LoRA or the run started from.

    Raises:
        ValueError: nothing of this name, an unsuitable option, or no LoRA in the folder.
    """
    import torch

    from diffalign.models import load_lora, load_policy

    name = args.model or MODEL
    if base and run is not None and not run.trains_lora:
        name = run.config["pretrained_model_name_or_path"]
    device = find_device(args.device)
    try:
        policy = load_policy(
            name,
            revision=args.revision,
            variant=args.variant,
            resolution=args.resolution,
            max_sequence_length=args.max_sequence_length,
            dtype=getattr(torch, args.dtype),
            device=device,
        )
    except ValueError as error:
        if run is not None and name == run.config.get("pretrained_model_name_or_path"):
            error.add_note(f"the model is the one that {run.source} names; --model gives another")
        raise
    if base:
        return policy
    if run is not None and run.checkpoint is not None:
        load_checkpoint_weights(policy, run)
    elif args.lora is not None:
        load_lora(policy, args.lora, trainable=False)
    return policy
