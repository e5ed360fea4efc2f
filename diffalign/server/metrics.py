"""Counts of the reward server in the text format of Prometheus."""

from __future__ import annotations

from typing import Any

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """Requests, images, batches, seconds and what waits, in a registry of its own."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self.registry = CollectorRegistry()
        named: Any = {"namespace": "diffalign_reward", "registry": self.registry}
        self._requests = Counter("requests", "Requests by HTTP status", ["status"], **named)
        self._images = Counter("images", "Images by reward and outcome", ["reward", "outcome"], **named)
        self._sizes = Histogram("batch_images", "Images per call", ["reward"], buckets=BATCH_SIZES, **named)
        self._seconds = Histogram("batch_seconds", "Seconds per call", ["reward"], buckets=SECONDS, **named)
        self._waiting = Gauge("waiting_images", "Images in the queue", **named)
        self._alive = Gauge("devices_alive", "Devices whose process runs", **named)

    def request(self, status: int) -> None:
        """Counts an answer."""
        self._requests.labels(str(status)).inc()

    def scored(self, reward: str, images: int, failed: int) -> None:
        """Counts the images of an answer."""
        self._images.labels(reward, "scored").inc(images - failed)
        self._images.labels(reward, "failed").inc(failed)

    def batch(self, reward: str, images: int, seconds: float) -> None:
        """Counts a call of a worker."""
        self._sizes.labels(reward).observe(images)
        self._seconds.labels(reward).observe(seconds)

    def text(self, waiting: int, alive: int) -> bytes:
        """Everything, as Prometheus reads it, with how many images wait and how many devices run now."""
        from prometheus_client import generate_latest

        self._waiting.set(waiting)
        self._alive.set(alive)
        return generate_latest(self.registry)
