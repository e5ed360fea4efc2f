"""Which adapter belongs to a pipeline: families are found by scanning this package, so that a new one is a new file."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from inspect import Parameter, signature
from pkgutil import iter_modules
from typing import Any

from diffalign import models
from diffalign.models.adapter import Adapter
from diffalign.naming import nearest


@cache
def families() -> dict[str, type[Adapter]]:
    """Pipeline class name -> adapter, of every `Adapter` subclass in this package that names pipelines.

    Raises:
        TypeError: two adapters that name one pipeline class.
    """
    found: dict[str, type[Adapter]] = {}
    for info in iter_modules(models.__path__):
        module = import_module(f"{models.__name__}.{info.name}")
        for kind in vars(module).values():
            if not (isinstance(kind, type) and issubclass(kind, Adapter) and kind.__module__ == module.__name__):
                continue
            for name in vars(kind).get("pipelines", ()):
                if name in found:
                    raise TypeError(f"{found[name].__name__} and {kind.__name__} both name {name}")
                found[name] = kind
    return dict(sorted(found.items()))


def adapt(pipeline: Any, *, resolution: int | None = None, **options: Any) -> Adapter:
    """The adapter of a pipeline.

    Args:
        pipeline: a diffusers pipeline.
        resolution: image height and width in pixels, both.
        options: keyword arguments of `Adapter` (height, width, frames, embedded_guidance, max_sequence_length,
            latent_dtype, device).

    Raises:
        ValueError: a pipeline class without an adapter, or an option its family does not have.
    """
    name, known = type(pipeline).__name__, families()
    if name not in known:
        raise ValueError(
            f"there is no adapter for {name}{nearest(name, known)} (valid: {', '.join(known)}). A new family is one "
            "file in diffalign/models that names the pipeline class: docs/adding_a_model.md"
        )
    if resolution is not None:
        options = {"height": resolution, "width": resolution} | options
    unknown = sorted(set(options) - _options(known[name]))
    if unknown:
        valid = _options(known[name])
        raise ValueError(
            f"{name} has no option {unknown[0]}{nearest(unknown[0], valid)} (valid: {', '.join(sorted(valid))})"
        )
    return known[name](pipeline, **options)


def _options(kind: type[Adapter]) -> set[str]:
    """Keyword arguments of an adapter and of the classes that it passes further ones on to."""
    parameters = [p for cls in kind.__mro__ if "__init__" in vars(cls) for p in signature(cls).parameters.values()]
    return {p.name for p in parameters if p.kind is Parameter.KEYWORD_ONLY}
