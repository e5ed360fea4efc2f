"""Rewards of the frozen model's own images, which a reward can be shaped against."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping

import torch
from accelerate import Accelerator
from torch import Tensor

from diffalign.sampling import noise_key
from diffalign.trainers.rollouts.spec import REFERENCE, Record
from diffalign.trainers.run.batch import gather_rows

Score = Callable[[list[str], list[int], list[Record]], Mapping[str, Tensor]]
"""(prompts, seeds, records) -> (B,) scores by name, of images that the frozen model draws."""


class ReferenceScores:
    """Scores of M samples per prompt from the policy before training, made once for each prompt.

    The seeds are those of the run and the prompt, so a resumed run has the same.

    Args:
        wanted: reward name -> M.
        score: draws and scores.
        accelerator: the processes that share the work.
        seed: the run's seed.
        batch_size: images per forward.
    """

    def __init__(
        self, wanted: Mapping[str, int], score: Score, accelerator: Accelerator, *, seed: int, batch_size: int
    ) -> None:
        self._wanted, self._score, self._accelerator = wanted, score, accelerator
        self._seed, self._batch_size = seed, batch_size
        self._known: dict[str, dict[str, list[float]]] = {}

    def of(self, records: list[Record]) -> dict[str, Tensor]:
        """Reward name -> `(P, M)`, for the rewards that need it; the same on every process."""
        if not self._wanted:
            return {}
        keys = [_key(record) for record in records]
        new = {key: record for key, record in zip(keys, records, strict=True) if key not in self._known}
        if new:
            self._add(new)
        return {
            name: torch.tensor([self._known[key][name][:count] for key in keys]) for name, count in self._wanted.items()
        }

    def _add(self, new: dict[str, Record]) -> None:
        """Score the new prompts, shared out over processes."""
        samples, world = max(self._wanted.values()), self._accelerator.num_processes
        listed = [(key, record, j) for key, record in new.items() for j in range(samples)]
        pieces = torch.arange(len(listed)).split(self._batch_size)[self._accelerator.process_index :: world]
        found: dict[str, list[Tensor]] = {name: [torch.zeros(0)] for name in self._wanted}
        for piece in pieces:
            chosen = [listed[int(i)] for i in piece]
            seeds = [noise_key(self._seed, REFERENCE, int(key, 16), j) & 0x7FFFFFFF for key, _, j in chosen]
            records = [record for _, record, _ in chosen]
            scores = self._score([record["prompt"] for record in records], seeds, records)
            for name in found:
                found[name].append(scores[name].cpu())
        rows = torch.cat([torch.zeros(0, dtype=torch.long), *pieces])
        for name, collected in found.items():
            whole = gather_rows(self._accelerator, torch.cat(collected), rows, len(listed))
            for key, row in zip(new, whole.view(len(new), samples).tolist(), strict=True):
                self._known.setdefault(key, {})[name] = row


def _key(record: Record) -> str:
    """15 hex digits of a prompt and its metadata, which some rewards look at."""
    text = json.dumps([record["prompt"], record["metadata"]], sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:15]
