"""Benchmarks as data and pure functions; detectors and judges are injected callables."""
