"""A benchmark suite before and after training, on one page: two runs of `diffalign evaluate --suite`.

    python benchmarks/suites/before_after.py geneval --prompts evaluation_metadata.jsonl --model MODEL \
        --lora runs/my_run --output suites/my_run -- --num_inference_steps 40 --guidance_scales 4.5 --dtype bfloat16

What follows `--` goes to both evaluations. Under `accelerate launch` both are shared by all processes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from diffalign.commands import main as diffalign


def commands(args: argparse.Namespace, options: Sequence[str]) -> list[list[str]]:
    """The two command lines: without the training, then with it and compared."""
    output = Path(args.output)
    both = ["evaluate", "--suite", args.suite, "--prompts", args.prompts, "--model", args.model, *options]
    before = [*both, "--output", str(output / "before"), "--label", "before"]
    after = [*both, "--output", str(output / "after"), "--label", "after", "--lora", args.lora]
    return [before, [*after, "--against", str(output / "before" / "result.json")]]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs both; stops at the first that fails and returns its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    split = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("suite", help="name of the suite")
    parser.add_argument("--prompts", required=True, help="the suite's prompt file")
    parser.add_argument("--model", required=True, help="the model before training")
    parser.add_argument("--lora", required=True, help="run folder or LoRA")
    parser.add_argument("--output", required=True, help="folder for both")
    for command in commands(parser.parse_args(words[:split]), words[split + 1 :]):
        status = diffalign(command)
        if status:
            return status
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
