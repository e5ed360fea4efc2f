"""The reward server: rewards over HTTP, one process per device, batches over all clients."""

from __future__ import annotations

__all__: list[str] = []
