"""Scores kept on disk under a hash of all that they depend on, so that no image is scored twice.

One SQLite file: safe to read from anybody, and to write from several processes of one machine (give machines that share
a network drive a file each). Hits happen where the same images come again: evaluations, a resumed run, a folder scored
twice. A rollout in training is new every time.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

VERSION = "2"
"""Part of every key; raised when built-in rewards change their scores."""
BUSY_SECONDS = 60.0
CHUNK = 500
"""Keys per query: SQLite bounds the number of parameters."""


def content_key(identity: str, image: Tensor, prompt: str, metadata: Mapping[str, Any]) -> str:
    """The name of one score.

    Args:
        identity: of the reward; see `diffalign.rewards.identity`.
        image: `(3, H, W)`.
        prompt: its prompt.
        metadata: its record; tensors in it count by content.
    """
    digest = hashlib.sha256()
    for part in (VERSION, identity, prompt, json.dumps(metadata, sort_keys=True, default=_plain)):
        digest.update(len(part).to_bytes(8, "big") + part.encode())  # lengths, so that no two parts run together
    digest.update(_bytes(image))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    """Shape, type and content."""
    dense = tensor.detach().cpu().contiguous()
    return f"{tuple(dense.shape)} {dense.dtype}".encode() + dense.flatten().view(torch.uint8).numpy().tobytes()


def _plain(value: Any) -> Any:
    """What JSON does not know."""
    if isinstance(value, Tensor):
        return hashlib.sha256(_bytes(value)).hexdigest()
    return repr(value)


class KeyedStore:
    """Values by key in one table of a SQLite file.

    Args:
        path: the file, or a folder in which it is `scores.sqlite`; made when the first value comes.
        table: name of the table; several stores may share a file.
        kind: SQLite's type of the values, REAL or TEXT.

    Raises:
        ValueError: the file is something else.
    """

    def __init__(self, path: str | Path, table: str, kind: str) -> None:
        self.path = Path(path)
        if not self.path.suffix:
            self.path = self.path / "scores.sqlite"
        self._table, self._kind = table, kind
        self._lock = threading.Lock()
        self._ready = False

    def read(self, keys: Sequence[str]) -> dict[str, Any]:
        """The values that are known, by key."""
        found: dict[str, Any] = {}
        if not self.path.exists():
            return found
        with self._lock, closing(self._connect()) as database:
            for start in range(0, len(keys), CHUNK):
                some = list(keys[start : start + CHUNK])
                marks = ",".join("?" * len(some))
                found.update(database.execute(f"SELECT key, score FROM {self._table} WHERE key IN ({marks})", some))
        return found

    def write(self, values: Mapping[str, Any]) -> None:
        """Keep values, all of them or none; existing entries stay."""
        if not values:
            return
        with self._lock, closing(self._connect()) as database, database:
            database.executemany(f"INSERT OR IGNORE INTO {self._table} VALUES (?, ?)", list(values.items()))

    def _connect(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(self.path, timeout=BUSY_SECONDS)
        if not self._ready:
            try:
                with database:
                    database.execute(
                        f"CREATE TABLE IF NOT EXISTS {self._table} (key TEXT PRIMARY KEY, score {self._kind}) "
                        "WITHOUT ROWID"
                    )
            except sqlite3.DatabaseError as error:
                database.close()
                raise ValueError(
                    f"{self.path} is no cache of scores ({error}): move it, or name another file"
                ) from error
            self._ready = True
        return database


class ScoreCache(KeyedStore):
    """Scores by key. Failures (NaN) are never kept, so that they are tried again.

    Args:
        path: see `KeyedStore`.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path, "scores", "REAL")

    def get(self, keys: Sequence[str]) -> dict[str, float]:
        """The scores that are known, by key."""
        return self.read(keys)

    def put(self, scores: Mapping[str, float]) -> None:
        """Keep scores; existing entries stay."""
        self.write({key: float(score) for key, score in scores.items() if score == score})
