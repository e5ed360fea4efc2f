"""`diffalign serve-rewards`: rewards over HTTP, for runs on other devices, machines or environments."""

from __future__ import annotations

import argparse
import os

import yaml

from diffalign.commands._model_options import positive

HELP = "serve rewards over HTTP; a run uses them as `remote:NAME`"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the rewards, the address and the limits."""
    parser.add_argument(
        "--reward", action="append", required=True, help="name or file.py:function; repeat it for several rewards"
    )
    parser.add_argument("--reward_kwargs", metavar="{REWARD: {KEY: VALUE}}", help="arguments per reward, in YAML")
    parser.add_argument("--device", nargs="+", help="one process per device [cuda if there is one, else cpu]")
    address = parser.add_argument_group("address")
    address.add_argument("--host", default="127.0.0.1", help="address to bind; other than loopback needs a token")
    address.add_argument("--port", type=int, default=8900, help="0: any free one")
    address.add_argument("--token", help="that clients send [$DIFFALIGN_REWARD_TOKEN, which no process list shows]")
    limits = parser.add_argument_group("limits")
    limits.add_argument("--batch_size", type=positive, default=32, help="most images in one call of a reward")
    limits.add_argument("--queue_size", type=positive, default=4096, help="most images that wait")
    limits.add_argument("--timeout", type=float, default=300.0, help="seconds that one call of a reward may take")
    limits.add_argument("--max_megabytes", type=positive, default=64, help="largest body of a request")
    limits.add_argument("--max_images", type=positive, default=256, help="most images in a request")


def run(args: argparse.Namespace) -> int:
    """Serves until SIGINT or SIGTERM."""
    from diffalign.rewards.protocol import TOKEN_ENV, Limits
    from diffalign.server.serve import Options, serve

    if not args.timeout > 0 or not 0 <= args.port < 65536:
        raise ValueError(f"--timeout is above 0 and --port 0 to 65535; got {args.timeout} and {args.port}")
    options = Options(
        args.host,
        args.port,
        os.environ.get(TOKEN_ENV, "") if args.token is None else args.token,
        args.batch_size,
        args.queue_size,
        args.timeout,
        Limits(args.max_megabytes * 2**20, args.max_images),
    )

    def ready(url: str, names: list[str]) -> None:
        token = "token required" if options.token else "no token"
        print(f"serving {', '.join(names)} at {url} ({', '.join(devices)}; {token})", flush=True)

    devices = args.device or [_default_device()]
    serve(_specs(args.reward, args.reward_kwargs), devices, options, ready)
    print("stopped", flush=True)
    return 0


def _default_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _specs(rewards: list[str], kwargs: str | None) -> dict[str, dict[str, object]]:
    """Keyword arguments by reward, those of `file.py:function` under the path that the processes find."""
    from diffalign.rewards.preparation import check_names

    given = yaml.safe_load(kwargs or "{}")
    if not isinstance(given, dict) or not all(isinstance(value, dict) for value in given.values()):
        raise ValueError(f"--reward_kwargs {kwargs!r} must be like '{{clip: {{scaling: cosine}}}}'")
    check_names("--reward_kwargs", given, rewards)
    return {reward: given.get(reward, {}) for reward in rewards}
