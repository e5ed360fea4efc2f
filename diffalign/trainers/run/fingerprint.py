"""Digests of what a run depends on outside its configuration: prompts, reward files, base weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffalign.models import Adapter
from diffalign.rewards import Reward, identity

VALUES = 16
"""Of each tensor that count: enough to see that other weights were loaded, and quick on a model of any size."""


def fingerprints(
    policy: Adapter, records: Sequence[Mapping[str, Any]], rewards: Mapping[str, Reward], sources: Sequence[Any]
) -> dict[str, str]:
    """What was used -> its digest; compared when a run is resumed.

    Args:
        policy: the model before training.
        records: training records.
        rewards: the trained rewards.
        sources: how they were named, in the same order; only `file.py:function` can change under its name.
    """
    found = {"train_dataset": _digest(json.dumps(list(records), sort_keys=True, default=repr).encode())}
    for source, (name, reward) in zip(sources, rewards.items(), strict=False):
        if isinstance(source, str) and ".py:" in source and Path(source.rpartition(":")[0]).expanduser().is_file():
            found[f"reward {name}"] = _digest((identity(source, {}, reward) or "").encode())
    return found | {"model": _model(policy)}


def check_unchanged(then: Mapping[str, str], now: Mapping[str, str], path: Path) -> None:
    """Refuse to go on with other data, rewards or weights under the same names.

    Raises:
        ValueError: what changed.
    """
    changed = [name for name, digest in now.items() if then.get(name, digest) != digest]
    if changed:
        raise ValueError(
            f"{path} cannot be resumed: {', '.join(changed)} changed since it was written (same name, other content). "
            "Put the old content back, or start a new run"
        )


def _model(policy: Adapter) -> str:
    digest = hashlib.sha256()
    for name, parameter in policy.denoiser.named_parameters():
        if "lora_" not in name:
            plain = name.replace(".base_layer", "")
            digest.update(f"{plain} {tuple(parameter.shape)}".encode())
            digest.update(parameter.detach().flatten()[:VALUES].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:32]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]
