"""The run configuration: keys, how they are read, and what a run may hold."""

from diffalign.config.foreign_names import suggestion
from diffalign.config.paths import expanded
from diffalign.config.rules import check_ranges
from diffalign.config.run_config import (
    ALIASES,
    RunConfig,
    canonical,
    changed,
    known_keys,
    load_config,
    make_config,
    save_config,
)
from diffalign.config.values import nearest

__all__ = [
    "ALIASES",
    "RunConfig",
    "canonical",
    "changed",
    "check_ranges",
    "expanded",
    "known_keys",
    "load_config",
    "make_config",
    "nearest",
    "save_config",
    "suggestion",
]
