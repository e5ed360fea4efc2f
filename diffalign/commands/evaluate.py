"""`diffalign evaluate`: scores on held-out prompts, and the gain over another evaluation."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffalign.commands._drawing import drawn_images, plan_samples
from diffalign.commands._evaluation_rewards import KEY, chosen_rewards
from diffalign.commands._evaluations import gains, read_evaluation, scores_table, write_evaluation
from diffalign.commands._model_options import MODEL, add_model_options, load_model
from diffalign.commands._options import expanded_path, number, positive
from diffalign.commands._outputs import check_writable, write_or_rescue
from diffalign.commands._runs import MODEL_KEYS, Run, fill_from_run, named_run
from diffalign.commands._suite_options import add_suite_options, refuse_suite_options
from diffalign.data import Record, read_prompts

if TYPE_CHECKING:
    from torch import Tensor

    from diffalign.models import Adapter
    from diffalign.rewards import Reward

HELP = "score a model on held-out prompts, or compare it with another evaluation"
PROTOCOL: dict[str, Any] = {
    "guidance_scales": [1.0, 2.0, 3.0, 5.0],
    "num_inference_steps": 10,
    "images_per_prompt": 4,
    "images_per_scale": None,
    "seed": 0,
    "negative_prompt": "",
}
"""Defaults where no option, other evaluation (--against) or run sets a value."""
RUN_KEYS: dict[str, str | tuple[str, ...]] = {
    **MODEL_KEYS,
    "prompts": "eval_dataset",
    "max_prompts": "max_eval_samples",
    "guidance_scales": "eval_guidance_scales",
    "num_inference_steps": ("eval_num_inference_steps", "num_inference_steps"),
    "images_per_prompt": "eval_images_per_prompt",
    "images_per_scale": "eval_images_per_scale",
}
"""Option -> configuration key of the run that is evaluated."""
PROBES = 4
"""Images that show whether a LoRA changes anything."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds prompts, rewards, protocol, and what to compare with."""
    parser.add_argument(
        "--prompts",
        type=expanded_path,
        metavar="FILE",
        help="shapes:heldout, .txt or .jsonl [the run's, else shapes:heldout]",
    )
    parser.add_argument("--max_prompts", type=positive, help="use only the first n prompts")
    parser.add_argument(
        "--reward_funcs", nargs="+", type=expanded_path, metavar="REWARD",
        help="names or file.py:function; the first is the score, the others are reported beside it [those of "
        "--against, else the run's, else shapes_strict shapes]",
    )  # fmt: skip
    parser.add_argument("--reward_kwargs", metavar="{REWARD: {KEY: VALUE}}", help="arguments per reward, in YAML")
    parser.add_argument(
        "--output", type=expanded_path, metavar="FILE", help="JSON file that the evaluation is written to"
    )
    group = parser.add_argument_group("comparison")
    either = group.add_mutually_exclusive_group()
    either.add_argument(
        "--against",
        nargs="+",
        type=expanded_path,
        metavar="FILE",
        help="JSON of another evaluation: print the gain over it; with --suite any number: one page compares all",
    )
    either.add_argument("--baseline", action="store_true", help="evaluate without the training too, print the gain")
    group = parser.add_argument_group("protocol [that of --against, else the run's, else in brackets]")
    group.add_argument(
        "--guidance_scales", nargs="+", type=number, metavar="FLOAT",
        help="the best of them counts; at most 1: the conditional branch alone [1 2 3 5]",
    )  # fmt: skip
    group.add_argument("--num_inference_steps", type=positive, help="deterministic steps [10]")
    group.add_argument("--images_per_prompt", type=positive, help="images per prompt [4]")
    group.add_argument(
        "--images_per_scale", type=positive,
        help="of these, how many choose the best scale, which alone is then measured on all [all]",
    )  # fmt: skip
    group.add_argument("--seed", type=int, help="seed of the initial noise [0]")
    group.add_argument("--negative_prompt", help="text of the unconditional branch [empty]")
    group.add_argument("--batch_size", type=positive, help="images per forward [64; with --suite 16]")
    add_suite_options(parser)
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluates, prints the tables, writes the JSON; everything that can be refused is refused before."""
    trained = named_run(args)
    if args.suite:
        from diffalign.commands._suite import run_suite

        return run_suite(args, trained)
    refuse_suite_options(args)
    other = read_evaluation(args.against[0]) if args.against else None
    if args.baseline and not args.lora and trained is None:
        raise ValueError("--baseline compares with the model before training: name the LoRA by --lora, or the run")
    _fill(args, trained, other)
    everything = read_prompts(args.prompts)
    records, choice = everything[: args.max_prompts], chosen_rewards(args, other, trained)
    rewards = choice.made()
    if other is not None:
        _check_comparable(other, args, records, rewards)
    if args.output:
        check_writable(Path(args.output))
    before, probes = other, []
    for base in (True, False) if args.baseline else (False,):
        if args.baseline:
            print("before training:" if base else "after training:", flush=True)
        policy = load_model(args, trained, base=base)
        probes += [_probe(policy, records, args)] if args.baseline else []
        found = _evaluate(policy, args, records, rewards)
        found |= {"prompts_available": len(everything), KEY: choice.stored()}
        print(scores_table(found), flush=True)
        before, after = (found if base else before), found
    if args.output:
        print(write_or_rescue(Path(args.output), lambda path: write_evaluation(after, path)))
    if before is not None:
        print(gains(before, after))
        _warn_if_unchanged(before, after, probes)
    return 0


def _warn_if_unchanged(before: dict[str, Any], after: dict[str, Any], probes: list[Tensor]) -> None:
    """A training that changes nothing is most often one that was not loaded."""
    if len(probes) == 2 and bool((probes[0] == probes[1]).all()):
        text = f"the training changes none of {len(probes[0])} images by one level of 255"
    elif not probes and before["prompts"] == after["prompts"]:
        text = "every score of every prompt is the same in both evaluations"
    else:
        return
    print(f"warning: {text}: are these the weights, and is it the model that they belong to?", file=sys.stderr)


def _fill(args: argparse.Namespace, trained: Run | None, other: dict[str, Any] | None) -> None:
    """Options that were not given: from the other evaluation, else the run, else the defaults."""
    chosen, scales = args.images_per_scale, [float(scale) for scale in (other or {}).get("guidance") or []]
    for key in PROTOCOL if other is not None else ():
        if getattr(args, key) is None:
            setattr(args, key, scales if key == "guidance_scales" else (other or {}).get(key))
    fill_from_run(args, trained, RUN_KEYS)
    for key, value in PROTOCOL.items():
        setattr(args, key, value if getattr(args, key) is None else getattr(args, key))
    if chosen is None and args.images_per_scale is not None:
        args.images_per_scale = min(args.images_per_scale, args.images_per_prompt)
    args.prompts = args.prompts or "shapes:heldout"


def _check_comparable(
    other: dict[str, Any], args: argparse.Namespace, records: list[Record], rewards: dict[str, Reward]
) -> None:
    """Refuse, before anything is drawn, a comparison that would be refused after it."""
    from diffalign.report import check_comparable
    from diffalign.trainers.run.evaluation import evaluation_seeds

    planned = {
        "suite": next(iter(rewards)),
        "num_inference_steps": args.num_inference_steps,
        "images_per_prompt": args.images_per_prompt,
        "seeds": evaluation_seeds(args.seed, len(records) * args.images_per_prompt),
        "prompts": [{"prompt": one["prompt"], "task": str(one["metadata"].get("tag", "all"))} for one in records],
    }
    check_comparable(other, planned)


def _evaluate(
    policy: Adapter, args: argparse.Namespace, records: list[Record], rewards: dict[str, Reward]
) -> dict[str, Any]:
    from diffalign.trainers.run.evaluation import evaluate_policy

    options = {key: getattr(args, key) for key in PROTOCOL}
    found = evaluate_policy(policy, records, rewards, **options, batch_size=args.batch_size or 64)
    return found | {"model": args.model or MODEL, "negative_prompt": args.negative_prompt}


def _probe(policy: Adapter, records: list[Record], args: argparse.Namespace) -> Tensor:
    """A few images (n, 3, H, W) as 8-bit numbers, the same prompts and seeds for every policy."""
    import torch

    samples = plan_samples(records[:PROBES], 1, args.seed)
    options = {"num_inference_steps": args.num_inference_steps, "negative_prompt": args.negative_prompt}
    images = drawn_images(policy, samples, guidance_scale=args.guidance_scales[0], progress=False, **options)
    return (torch.stack([image for _, image in images]) * 255).round().byte()
