"""`diffalign rewards`: which rewards there are, and whether one works here."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

import yaml

from diffalign.commands._tables import table

if TYPE_CHECKING:
    from diffalign.rewards.base import Reward

HELP = "list the rewards, or check that one works"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the actions `list` and `check`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|check")
    actions.add_parser("list", help="registered rewards", description="Registered rewards.")
    check = actions.add_parser("check", help="does a reward keep the contract?", description="Checks one reward.")
    check.add_argument("reward", help="a name of `diffalign rewards list`, or file.py:function")
    check.add_argument("--kwargs", default="{}", metavar="{KEY: VALUE}", help="its keyword arguments, in YAML")


def run(args: argparse.Namespace) -> int:
    """Lists, or checks one reward; exit status 1 when it breaks the contract."""
    return _list() if args.action == "list" else _check(args.reward, args.kwargs)


def _list() -> int:
    from diffalign.rewards import registry

    rows = [[entry.name, entry.distribution, entry.value] for entry in registry.entries()]
    print(table(["reward", "from", "made by"], rows))
    return 0


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
    except ValueError as error:
        print(f"FAILED: {error}")
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
