"""Checks before a run: what every run must pass, and what `diffalign doctor` adds."""
