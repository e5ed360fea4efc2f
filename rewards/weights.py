"""Published weights: how a file is read, and loaded all or nothing. Where it is: `diffalign.rewards.hub`.

Only safetensors and plain tensors are read: a checkpoint that holds Python objects could run code, and is refused.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffalign.rewards.hub import (
    MissingWeights,
    absent,
    cache_without_network,
    cached,
    locate,
    locate_any,
    missing_text,
)

__all__ = [
    "MissingWeights",
    "absent",
    "cached",
    "compare_keys",
    "from_pretrained",
    "load_model",
    "load_strict",
    "locate",
    "locate_any",
    "read",
]

SHOWN = 4
"""Differences that an error lists of each kind."""


def read(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint file, on the CPU; a `state_dict` inside is taken out.

    Raises:
        ValueError: If the file is damaged, or holds more than tensors.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds more than tensors and is not opened, because that could run code; convert it to "
            f"safetensors on a machine where you trust it ({str(error).splitlines()[0]})"
        ) from error
    except (RuntimeError, EOFError) as error:
        raise ValueError(f"{path} is no checkpoint that torch can read, or is damaged: {error}") from error
    return _tensors(content, path)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file, or is damaged: {error}") from error


def _tensors(content: Any, path: Path) -> dict[str, Tensor]:
    """The flat dictionary of tensors in the content of a checkpoint."""
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path} is no dictionary of tensors, nor holds one under 'state_dict'")
    return dict(content)


def load_strict(module: nn.Module, state: Mapping[str, Tensor], source: object, *, ignore: Sequence[str] = ()) -> None:
    """Copies tensors into a module, all or nothing.

    Args:
        module: Gets the tensors, in its own dtype.
        state: Tensors by the module's names.
        source: Where they come from, for the error message.
        ignore: Regular expressions of names that the file may have beyond the module's.

    Raises:
        ValueError: If names or shapes differ; lists the first differences.
    """
    own = module.state_dict()
    shapes = {
        name: f"{tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    }
    compare_keys(set(own) - set(state), set(state) - set(own), shapes, source, ignore=ignore)
    module.load_state_dict({name: state[name] for name in own})


def compare_keys(
    missing: Iterable[str],
    unexpected: Iterable[str],
    shapes: Mapping[str, str],
    source: object,
    *,
    ignore: Sequence[str] = (),
) -> None:
    """Refuses a checkpoint that is not the one a model is made for.

    Args:
        missing: Names that the model has and the file lacks.
        unexpected: Names that the file has and the model lacks.
        shapes: Name -> what is wrong with the shape.
        source: The file.
        ignore: Regular expressions of unexpected names that are harmless.

    Raises:
        ValueError: If anything is left; lists the first of each kind.
    """
    surplus = [name for name in unexpected if not any(re.search(pattern, name) for pattern in ignore)]
    found = [
        _some("lacks", missing),
        _some("has besides", surplus),
        _some("has other shapes", [f"{name} {text}" for name, text in shapes.items()]),
    ]
    if any(found):
        raise ValueError(
            f"{source} is not the checkpoint of this model: it {'; '.join(text for text in found if text)}. Is it "
            "another file, or a fine-tune in another format?"
        )


def _some(label: str, names: Iterable[str]) -> str:
    """`lacks a, b (and 3 more)`, empty for no names."""
    names = sorted(names)
    more = f" (and {len(names) - SHOWN} more)" if len(names) > SHOWN else ""
    return f"{label} {', '.join(names[:SHOWN])}{more}" if names else ""


def from_pretrained(factory: Any, source: str | Path, file: str, *, argument: str = "path", **options: Any) -> Any:
    """`factory.from_pretrained(source)` of transformers; files that cannot be found raise the error that names them.

    Args:
        factory: A class of transformers: model, tokenizer, processor, configuration.
        source: Hub id, or a local folder.
        file: The file that matters, for the error message.
        argument: What the user sets to name a local folder.
        **options: Further arguments of `from_pretrained`.

    Raises:
        MissingWeights: If the files cannot be found.
    """
    local = Path(source).expanduser()
    try:
        if local.is_dir():
            return factory.from_pretrained(str(local), **options)
        with cache_without_network():
            return factory.from_pretrained(str(source), **options)
    except OSError as error:
        raise MissingWeights(missing_text(str(source), file, argument, error)) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the table of differences that transformers logs: they raise errors here."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def load_model(
    factory: Any,
    source: str | Path,
    *,
    argument: str = "path",
    ignore: Sequence[str] = (),
    unused: Sequence[str] = (),
    **options: Any,
) -> Any:
    """A frozen model of transformers in eval mode, all of whose weights came from the files.

    transformers fills missing tensors with random numbers and logs a warning; here that is an error.

    Args:
        factory: A model class of transformers.
        source: Hub id, or a local folder in that format.
        argument: What the user sets to name a local folder.
        ignore: Regular expressions of harmless names that the file has beyond the model's.
        unused: Regular expressions of names that the class has, never computes with, and the file may lack.
        **options: Further arguments of `from_pretrained`.

    Raises:
        MissingWeights: If the files cannot be found.
        ValueError: If names or shapes differ from the model's; lists the first differences.
    """
    options = {"output_loading_info": True, "ignore_mismatched_sizes": True, **options}
    with _quiet():
        model, info = from_pretrained(factory, source, "model.safetensors", argument=argument, **options)
    shapes = {name: f"{tuple(file)} instead of {tuple(own)}" for name, file, own in info["mismatched_keys"]}
    harmless = (*ignore, r"position_ids$")
    missing = [name for name in info["missing_keys"] if not any(re.search(pattern, name) for pattern in unused)]
    compare_keys(missing, info["unexpected_keys"], shapes, source, ignore=harmless)
    return model.eval().requires_grad_(False)
