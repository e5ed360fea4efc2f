"""Readers of what a run is fed with."""

from __future__ import annotations

from diffalign.data.prompts import Record, read_prompts

__all__ = ["Record", "read_prompts"]
