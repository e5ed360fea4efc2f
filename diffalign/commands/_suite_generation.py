"""Drawing a suite's images: what they are made with is written down first, and held to when a run goes on."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from diffalign.commands._model_options import MODEL, load_model
from diffalign.commands._runs import MODEL_KEYS, Run, fill_from_run
from diffalign.commands._suite_images import Shot, draw, missing_batches
from diffalign.commands._suite_parts import Part
from diffalign.commands._suite_processes import Processes
from diffalign.commands.generate import SAMPLING_KEYS, fill_from_pipeline

SETTINGS = "settings.json"
BLOCK = 1 << 20
DRAWN_WITH = ("guidance_scale", "num_inference_steps", "negative_prompt", "images_per_prompt")
MADE_WITH = ("revision", "variant", "resolution", "max_sequence_length", "dtype", "seed", *DRAWN_WITH)
"""Options that images depend on, beside the model."""


def draw_missing(
    args: argparse.Namespace,
    trained: Run | None,
    parts: list[Part],
    shots: list[Shot],
    folder: Path,
    processes: Processes,
) -> dict[str, Any]:
    """Draws the images that are not there; what all of them are made with."""
    from tqdm import tqdm

    begun = begun_settings(folder)
    for key in ("model", "lora", *MADE_WITH):
        if getattr(args, key) is None and begun.get(key) is not None:
            setattr(args, key, begun[key])
    fill_from_run(args, trained, MODEL_KEYS | SAMPLING_KEYS)
    batches = missing_batches(shots, folder, args.batch_size or 16)
    policy = load_model(args, trained) if batches or args.guidance_scale is None else None
    if policy is not None:
        fill_from_pipeline(args, policy)
    settings = _settings(args, trained, parts)
    if processes.main:
        claim(folder, settings)
    processes.wait()
    claim(folder, settings)
    if policy is not None:
        own = processes.share(batches)
        chosen = {key: getattr(args, key) for key in DRAWN_WITH}
        with tqdm(total=sum(map(len, own)), desc="draw", unit="image", disable=not processes.main) as bar:
            for count in draw(policy, parts, own, folder, args.seed, **chosen):
                bar.update(count)
    processes.wait()
    return settings


def _settings(args: argparse.Namespace, trained: Run | None, parts: list[Part]) -> dict[str, Any]:
    """What images are made with, and the hash of the prompts."""
    prompts = json.dumps([[part.suite.name, *(line["prompt"] for line in part.lines)] for part in parts])
    weights = str(trained.checkpoint) if trained is not None and trained.checkpoint is not None else None
    return {
        "suite": args.suite,
        "prompts": f"sha256:{hashlib.sha256(prompts.encode()).hexdigest()[:16]}",
        "model": args.model or MODEL,
        "model_hash": fingerprint(args.model),
        "lora": args.lora,
        "lora_hash": fingerprint(weights or args.lora),
        **{key: getattr(args, key) for key in MADE_WITH},
        "sampler": "ode",
    }


def claim(folder: Path, settings: dict[str, Any]) -> None:
    """Writes down what images are made with, or refuses to go on with other settings than they were begun with.

    Raises:
        ValueError: the folder was begun with other settings; names the first that differs.
    """
    path = folder / SETTINGS
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, path)
        return
    begun = json.loads(path.read_text(encoding="utf-8"))
    different = [key for key in {**begun, **settings} if begun.get(key) != settings.get(key)]
    if different:
        key = different[0]
        more = f" (and {len(different) - 1} further differences)" if len(different) > 1 else ""
        raise ValueError(
            f"{folder} was begun with {key} {begun.get(key)!r}, this call has {settings.get(key)!r}{more}: give "
            "another --output, or the same options to go on"
        )


def begun_settings(folder: Path) -> dict[str, Any]:
    """The settings of a folder that was begun; empty for a new one."""
    path = folder / SETTINGS
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def fingerprint(source: str | None) -> str | None:
    """Hash of a local model folder or file: names, sizes, and both ends of each file; None for what is not local."""
    path = Path(source).expanduser() if source else None
    if path is None or not path.exists():
        return None
    digest = hashlib.sha256()
    for file in sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]:
        size = file.stat().st_size
        digest.update(f"{file.relative_to(path) if path.is_dir() else ''} {size}\n".encode())
        with file.open("rb") as content:
            digest.update(content.read(BLOCK))
            content.seek(max(size - BLOCK, 0))
            digest.update(content.read(BLOCK))
    return f"sha256:{digest.hexdigest()[:16]}"
