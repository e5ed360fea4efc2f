"""The cost of a reward server: time per image through it against the same reward in this process, in one run.

    python benchmarks/system/reward_server.py
    python benchmarks/system/reward_server.py --size 32 --images 512 --rounds 5

Two rewards: `free`, one mean per image, which shows the cost of the way there and back alone, and `shapes`, the
embedded world's detector at 32 x 32. The server is `diffalign serve-rewards` on the loopback address, with a process
for its device; clients are threads of this process with a reward each, which share out the images evenly. Every way is
checked first: scores equal those of this process, to 1e-6 in float32 and 1/255 in 8 bits. Printed are medians over
rounds, each way in turn: images per second, and the processor time of client and server together, which other programs
on the same cores disturb less.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from diffalign import rewards, shapes  # noqa: E402

FREE = "def free(images, prompts, metadata):\n    return images.flatten(1).mean(1)\n"
Ask = Callable[[Tensor, list[str], list[dict[str, Any]]], Tensor]


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, Callable[[], float]]]:
    """The address of a server of both rewards, and the processor seconds of it and this process so far."""
    words = ["serve-rewards", "--reward", f"{folder}/free.py:free", "--reward", "shapes", "--port", "0"]
    process = subprocess.Popen([sys.executable, "-m", "diffalign", *words], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split(" at ")[1].split()[0]
        server = psutil.Process(process.pid)
        everyone = [psutil.Process(), server, *server.children(recursive=True)]
        yield url, lambda: sum(sum(one.cpu_times()[:2]) for one in everyone)
    finally:
        process.terminate()
        process.wait()


def scenes(name: str, count: int, size: int) -> tuple[Tensor, list[str], list[dict[str, Any]]]:
    """Rendered scenes for `shapes`, noise of another size for `free`."""
    lines = (shapes.prompts("train") * (1 + count // 100))[:count]
    generator = torch.Generator().manual_seed(0)
    if name == "shapes":
        images = shapes.render_batch([shapes.sample_scene(line, generator) for line in lines])
    else:
        images = torch.rand(count, 3, size, size, generator=generator)
    return images, [line["prompt"] for line in lines], lines


def shared(clients: list[Ask]) -> Ask:
    """Several clients at once, each with its share of the images."""

    def ask(images: Tensor, prompts: list[str], metadata: list[dict[str, Any]]) -> Tensor:
        step = -(-len(images) // len(clients))
        parts = [slice(i * step, (i + 1) * step) for i in range(len(clients))]
        with ThreadPoolExecutor(len(clients)) as pool:
            answers = pool.map(lambda one, part: one(images[part], prompts[part], metadata[part]), clients, parts)
            return torch.cat(list(answers))

    return ask


def ways(name: str, url: str, folder: Path, options: argparse.Namespace) -> dict[str, Ask]:
    """In this process, and through the server by encoding and number of clients."""
    here = rewards.get(f"{folder}/free.py:free" if name == "free" else name)
    found: dict[str, Ask] = {"in process": here}
    for encoding in options.encodings:
        for clients in options.clients:
            made: list[Ask] = [
                rewards.get(f"remote:{name}", url=url, encoding=encoding, batch_size=options.batch_size, concurrency=2)
                for _ in range(clients)
            ]
            found[f"{encoding}, {clients} client{'s' if clients > 1 else ''}"] = shared(made)
    return found


def race(
    name: str, url: str, cpu: Callable[[], float], folder: Path, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Images per second and processor milliseconds per image of each way."""
    batch = scenes(name, options.images, options.size)
    entries = ways(name, url, folder, options)
    expected = entries["in process"](*batch)
    for way, ask in entries.items():
        bound = 1e-6 if "float32" in way or way == "in process" else 1 / 255
        exact = name == "free" or bound < 1e-3  # a detector may see another scene after rounding
        if exact and not (ask(*batch) - expected).abs().max() <= bound:
            raise SystemExit(f"{way} scores {name} differently")
    rates, costs = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    for _ in range(options.rounds):
        for way, ask in entries.items():
            start, used = time.perf_counter(), cpu()
            for _ in range(options.repeats):
                ask(*batch)
            images = options.images * options.repeats
            rates[way].append(images / (time.perf_counter() - start))
            costs[way].append(1000 * (cpu() - used) / images)
    return [
        {"reward": name, "way": way, "rate": statistics.median(rates[way]), "cpu_ms": statistics.median(costs[way])}
        | {"least_ms": min(costs[way]), "most_ms": max(costs[way])}
        for way in entries
    ]


def main() -> None:
    """Reads the options, prints a table and the same as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--size", type=int, default=512, help="side of the images of `free`")
    parser.add_argument("--batch_size", type=int, default=16, help="images per request")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--encodings", nargs="+", default=["float32", "float16", "uint8", "png"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=2, help="times that all images are scored per round and way")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "free.py").write_text(FREE)
        with serving(Path(folder)) as (url, cpu):
            rows = [row for name in ("free", "shapes") for row in race(name, url, cpu, Path(folder), options)]
    print("| reward | way | images per second | processor ms per image (spread) |")
    print("|---|---|---|---|")
    for row in rows:
        spread = f"{row['least_ms']:.2f} to {row['most_ms']:.2f}"
        print(f"| {row['reward']} | {row['way']} | {row['rate']:.0f} | **{row['cpu_ms']:.2f}** ({spread}) |")
    print(json.dumps({"torch": torch.__version__, "threads": torch.get_num_threads(), **vars(options), "rows": rows}))


if __name__ == "__main__":
    main()
