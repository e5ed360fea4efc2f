"""Readers of prompts, image files and image folders."""

from __future__ import annotations

from diffalign.data.prompts import Record, read_prompts

__all__ = ["Record", "read_prompts"]
