"""Attention to a few keys, such as a prompt's tokens, of which each sample may have its own number."""

from __future__ import annotations

from diffalign.cuda_ext.cross_attention.operator import cross_attention, reason

__all__ = ["cross_attention", "reason"]
