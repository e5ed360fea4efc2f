"""One process or several (`accelerate launch -m diffalign evaluate ...`) that share the work of a suite."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

Item = TypeVar("Item")


class Processes(NamedTuple):
    """This process among all.

    Attributes:
        rank: its number, 0 for the one that writes.
        world: how many there are.
    """

    rank: int
    world: int

    @property
    def main(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> list[Item]:
        """What this process does of a list."""
        return list(items[self.rank :: self.world])

    def wait(self) -> None:
        """Waits for all others."""
        if self.world > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()

    def gather(self, items: list[Item]) -> list[Item]:
        """The items of all processes, on every one."""
        if self.world == 1:
            return items
        from accelerate.utils import gather_object

        found: list[Item] = gather_object(items)
        return found


def join_processes(device: str | None) -> Processes:
    """This process, connected with the others where a launcher started several."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes(0, 1)
    from accelerate import PartialState

    options: dict[str, Any] = {"cpu": True} if device == "cpu" else {}
    state = PartialState(**options)
    return Processes(state.process_index, state.num_processes)
