"""`diffalign rewards`: which rewards there are, whether one works here, and the scores of a folder of images."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

import yaml

from diffalign.commands import _reward_folder, _reward_list
from diffalign.commands._options import expanded_path, positive

if TYPE_CHECKING:
    from diffalign.rewards.base import Reward

HELP = "list the rewards, show or check one, or score a folder of images"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the actions `list`, `show`, `check` and `score`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|show|check|score")
    actions.add_parser("list", help="registered rewards", description="Registered rewards.")
    show = actions.add_parser("show", help="one reward in full", description="Everything known of one reward.")
    show.add_argument("reward", help="a name of `diffalign rewards list`")
    check = actions.add_parser("check", help="does a reward keep the contract?", description="Checks one reward.")
    check.add_argument("reward", type=expanded_path, help="a name of `diffalign rewards list`, or file.py:function")
    check.add_argument("--kwargs", default="{}", metavar="{KEY: VALUE}", help="its keyword arguments, in YAML")
    score = actions.add_parser("score", help="score a folder of images", description="Scores a folder of images.")
    score.add_argument("folder", type=expanded_path, help="images with captions, or what `diffalign generate` wrote")
    score.add_argument(
        "--reward_funcs",
        nargs="+",
        required=True,
        type=expanded_path,
        metavar="REWARD",
        help="names or file.py:function",
    )
    score.add_argument("--reward_kwargs", metavar="{REWARD: {KEY: VALUE}}", help="arguments per reward, in YAML")
    score.add_argument(
        "--output", type=expanded_path, metavar="FILE", help=".parquet, .csv, .jsonl [FOLDER_scores.parquet]"
    )
    score.add_argument("--batch_size", type=positive, default=16, help="images per call")
    score.add_argument("--device", default="cpu", metavar="DEVICE", help="where the rewards run")
    score.add_argument("--sheet", type=positive, default=8, help="best and worst images on the contact sheet")
    score.add_argument("--without_prompts", action="store_true", help="score images without a caption, too")


def run(args: argparse.Namespace) -> int:
    """Runs one action; exit status 1 when something is wrong with a reward or nothing could be scored."""
    if args.action == "score":
        return _reward_folder.run(args)
    if args.action == "show":
        return _reward_list.show_one(args.reward)
    return _reward_list.show_all() if args.action == "list" else _check(args.reward, args.kwargs)


def _check(spec: str, kwargs: str) -> int:
    from diffalign.rewards import registry

    arguments = yaml.safe_load(kwargs)
    if not isinstance(arguments, dict):
        raise ValueError(f"--kwargs {kwargs!r} must be a mapping like '{{variant: strict}}'")
    reward = registry.get(spec, **arguments)
    gradient = "with a gradient" if reward.differentiable else "without a gradient"
    print(f"{reward.name}: {reward.scope}, {gradient}, range {reward.range}, needs {sorted(reward.needs) or 'nothing'}")
    try:
        _own_test(reward)
        _on_scenes(reward)
    except Exception as error:  # of the reward's own code too: the check reports it
        notes = "".join(f" ({note})" for note in getattr(error, "__notes__", []))
        print(f"FAILED: {error}{notes}")
        return 1
    print("ok")
    return 0


def _own_test(reward: Reward) -> None:
    test: Any = getattr(reward, "self_test", None)
    if test is None:
        print("it has no self-test of its own; checked on rendered scenes alone")
        return
    test()
    print("its self-test passes")


def _on_scenes(reward: Reward) -> None:
    """The contract on eight scenes of the embedded world, and whether noise changes the score.

    Raises:
        ValueError: the contract is broken, or the reward does not see the difference.
    """
    import torch

    from diffalign import shapes
    from diffalign.rewards.contract import check_contract

    lines = shapes.prompts("train")[::150][:8]
    generator = torch.Generator().manual_seed(0)
    scenes = shapes.render_batch([shapes.sample_scene(line, generator) for line in lines])
    prompts = [line["prompt"] for line in lines]
    clean = check_contract(reward, scenes, prompts, lines)
    noisy = (scenes + 0.5 * torch.randn(scenes.shape, generator=generator)).clamp(0, 1)
    other = check_contract(reward, noisy, prompts, lines)
    print(f"mean score of rendered scenes {clean.mean():.4g}, of the same under noise {other.mean():.4g}")
    if torch.equal(clean, other):
        raise ValueError(f"{reward.name} scores scenes and the same scenes under heavy noise alike: it does not look")
