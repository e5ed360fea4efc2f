"""The run configuration: keys common to all methods, conversion, checks, YAML."""

from diffalign.config.files import (
    canonical,
    changed,
    converted,
    make_config,
    own_name,
    read_config,
    save_config,
    saved_form,
)
from diffalign.config.foreign_names import suggestion
from diffalign.config.keys import aliases, default_of, hints, key, known_keys
from diffalign.config.paths import expanded
from diffalign.config.run_config import RunConfig
from diffalign.config.yaml_text import parse_yaml, read_mapping
from diffalign.naming import nearest

__all__ = [
    "RunConfig",
    "aliases",
    "canonical",
    "changed",
    "converted",
    "default_of",
    "expanded",
    "hints",
    "key",
    "known_keys",
    "make_config",
    "nearest",
    "own_name",
    "parse_yaml",
    "read_config",
    "read_mapping",
    "save_config",
    "saved_form",
    "suggestion",
]
