"""`diffalign evaluate`: scores on held-out prompts, and the gain over another evaluation."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

from diffalign.commands._model_options import add_model_options, load_model
from diffalign.commands._options import expanded_path, positive
from diffalign.commands._run_options import read
from diffalign.commands._tables import table
from diffalign.data import Record, read_prompts

HELP = "score a model on held-out prompts, or compare it with another evaluation"
PROTOCOL: dict[str, Any] = {"num_inference_steps": 10, "images_per_prompt": 4, "images_per_scale": None, "seed": 0}
"""What is used where neither an option nor the file of --against says otherwise."""
GUIDANCE = (1.0, 2.0, 3.0, 5.0)
REWARDS = ("shapes_strict", "shapes")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds prompts, rewards, protocol, and what to compare with."""
    parser.add_argument(
        "--prompts", type=expanded_path, default="shapes:heldout", metavar="FILE", help="shapes:heldout, .txt or .jsonl"
    )
    parser.add_argument("--max_prompts", type=positive, help="use only the first n prompts")
    parser.add_argument(
        "--reward_funcs", nargs="+", type=expanded_path, metavar="REWARD",
        help="names or file.py:function; the first is the score, the others are reported beside it (default: those of "
        "--against, else shapes_strict shapes)",
    )  # fmt: skip
    parser.add_argument("--reward_kwargs", metavar="{REWARD: {KEY: VALUE}}", help="arguments per reward, in YAML")
    parser.add_argument(
        "--output", type=expanded_path, metavar="FILE", help="JSON file that the evaluation is written to"
    )
    group = parser.add_argument_group("comparison")
    either = group.add_mutually_exclusive_group()
    either.add_argument(
        "--against", type=expanded_path, metavar="FILE", help="JSON of another evaluation: print the gain over it"
    )
    either.add_argument("--baseline", action="store_true", help="evaluate without --lora too, print the gain")
    group = parser.add_argument_group("protocol (default: that of --against, else in brackets)")
    group.add_argument("--guidance_scales", nargs="+", type=float, metavar="FLOAT", help="the best counts [1 2 3 5]")
    group.add_argument("--num_inference_steps", type=positive, help="deterministic steps [10]")
    group.add_argument("--images_per_prompt", type=positive, help="images per prompt [4]")
    group.add_argument(
        "--images_per_scale", type=positive,
        help="of these, how many choose the best scale, which alone is then measured on all [all]",
    )  # fmt: skip
    group.add_argument("--seed", type=int, help="seed of the initial noise [0]")
    group.add_argument("--negative_prompt", default="", help="text of the unconditional branch")
    group.add_argument("--batch_size", type=positive, default=64, help="images per forward")
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluates, prints the tables, writes the JSON."""
    if args.baseline and not args.lora:
        raise ValueError("--baseline compares a LoRA with the model below it: name the LoRA by --lora")
    before = read_evaluation(args.against) if args.against else None
    protocol = protocol_of(args, before)
    records, rewards = read_prompts(args.prompts)[: args.max_prompts], rewards_of(args, before)
    if args.baseline:
        print(f"{args.model} without the LoRA", flush=True)
        before = _evaluate(args, None, records, rewards, protocol)
    after = _evaluate(args, args.lora, records, rewards, protocol)
    if args.output:
        write_evaluation(after, Path(args.output))
    print(scores_table(after))
    if before is not None:
        print(gains(before, after))
    return 0


def protocol_of(args: argparse.Namespace, before: dict[str, Any] | None) -> dict[str, Any]:
    """Steps, images, seed and guidance scales: from the options, else the other evaluation, else the defaults."""
    other = before or {}
    chosen = {key: getattr(args, key) for key in PROTOCOL}
    protocol = {key: other.get(key, PROTOCOL[key]) if value is None else value for key, value in chosen.items()}
    scales = args.guidance_scales or [float(scale) for scale in other.get("guidance") or GUIDANCE]
    return protocol | {"guidance_scales": scales}


def rewards_of(args: argparse.Namespace, before: dict[str, Any] | None) -> dict[str, Any]:
    """Rewards by their own names, the score first; without --reward_funcs those of the other evaluation.

    Raises:
        ValueError: an unknown reward, arguments for one that is not there, or two of one name.
    """
    from diffalign.rewards import registry

    given = read("reward_kwargs", args.reward_kwargs) if args.reward_kwargs else {}
    specs = args.reward_funcs or _measured(before) or list(REWARDS)
    if not isinstance(given, dict) or set(given) - set(specs):
        raise ValueError(f"--reward_kwargs {args.reward_kwargs} must map names out of {specs} to arguments")
    made = [registry.get(spec, **given.get(spec, {})) for spec in specs]
    rewards = {reward.name: reward for reward in made}
    if len(rewards) < len(made):
        raise ValueError(f"two rewards share one name: {', '.join(reward.name for reward in made)}")
    return rewards


def _measured(before: dict[str, Any] | None) -> list[str]:
    """Names of the rewards in another evaluation, its score first.

    Raises:
        ValueError: a reward calls itself by another name than the registry does.
    """
    if not before or not before["prompts"]:
        return []
    from diffalign.rewards import registry

    found = [before.get("suite"), *(before["prompts"][0].get("rewards") or {})]
    names = [str(name) for name in dict.fromkeys(found) if name]
    unknown = [name for name in names if name not in registry.names()]
    if unknown:
        raise ValueError(f"the other evaluation measured {', '.join(unknown)}: say by --reward_funcs how to get it")
    return names


def read_evaluation(name: str) -> dict[str, Any]:
    """Content of an evaluation file.

    Raises:
        ValueError: not JSON, or no evaluation.
        FileNotFoundError: no such file.
    """
    try:
        content = json.loads(Path(name).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{name} is not JSON: {error}") from error
    if not isinstance(content, dict) or "prompts" not in content:
        raise ValueError(f"{name} is no evaluation: it has no prompts (a run writes evaluation/before.json)")
    return content


def write_evaluation(evaluation: dict[str, Any], path: Path) -> None:
    """Writes an evaluation as JSON; a score that could not be had becomes null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_finite(evaluation), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def scores_table(evaluation: dict[str, Any]) -> str:
    """Overall and per task at each guidance scale; the best one is starred."""
    guidance, best = evaluation["guidance"], str(float(evaluation["best_guidance"]))
    heads = [f"g = {float(scale):g}{'*' if scale == best else ''}" for scale in guidance]
    tasks = dict.fromkeys(task for one in guidance.values() for task in one["tasks"])
    rows = [["overall", *(_number(one["overall"]) for one in guidance.values())]]
    rows += [[task, *(_number(one["tasks"].get(task)) for one in guidance.values())] for task in tasks]
    prompts, images = len(evaluation["prompts"]), evaluation["images_per_prompt"]
    few = evaluation.get("images_per_scale", images)
    starred = "* best guidance scale" + (f", {prompts * images} images" if few < images else "")
    caption = f"{evaluation['suite']}, {prompts * few} images a column, {evaluation['num_inference_steps']} steps"
    return f"{table(['task', *heads], rows)}\n{caption}; {starred}"


def gains(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Per task and per further reward the gain with its interval, then the headline."""
    from diffalign.report import compare, headline

    result = compare(before, after)
    entries = {**result["tasks"], **{f"reward {name}": one for name, one in result["rewards"].items()}}
    rows = [
        [name, *(_number(one[key]) for key in ("before", "after")), f"{one['gain']:+.3f}", _interval(one)]
        for name, one in entries.items()
    ]
    return f"\n{table(['', 'before', 'after', 'gain', '95% CI'], rows)}\n{headline(result)}"


def _evaluate(
    args: argparse.Namespace, lora: str | None, records: list[Record], rewards: dict[str, Any], protocol: dict[str, Any]
) -> dict[str, Any]:
    from diffalign.trainers.evaluation import evaluate_policy

    policy = load_model(args, lora=lora)
    options = {**protocol, "batch_size": args.batch_size, "negative_prompt": args.negative_prompt}
    return evaluate_policy(policy, records, rewards, **options)


def _interval(entry: dict[str, float]) -> str:
    return f"[{entry['low']:+.3f}, {entry['high']:+.3f}]"


def _number(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.3f}"


def _finite(value: Any) -> Any:
    """The same JSON value with null where a number is not finite."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
