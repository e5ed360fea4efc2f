"""diffalign: align diffusion and flow text-to-image models with rewards and preferences.

The public names are imported on first use, so that `import diffalign` is quick and needs none of the heavy libraries.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# name -> (module, attribute); an attribute of None means the module itself.
_PUBLIC: dict[str, tuple[str, str | None]] = {
    "PolicyGradientTrainer": ("diffalign.trainers", "PolicyGradientTrainer"),
    "RunConfig": ("diffalign.config", "RunConfig"),
    "Trainer": ("diffalign.trainers", "Trainer"),
    "cite": ("diffalign.citations", "cite"),
    "load_policy": ("diffalign.models", "load_policy"),
    "rewards": ("diffalign.rewards", None),
    "rollout": ("diffalign.sampling", "rollout"),
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first asked for (PEP 562)."""
    if name not in _PUBLIC:
        raise AttributeError(
            f"module 'diffalign' has no attribute {name!r}; public names: {', '.join(sorted(_PUBLIC))}"
        )
    module, attribute = _PUBLIC[name]
    value = import_module(module)
    if attribute is not None:
        value = getattr(value, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Lists the lazy names beside those already imported."""
    return sorted({*globals(), *_PUBLIC})
