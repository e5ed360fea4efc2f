"""Published weights: where a file lies, how it is read, and what is said when it is absent or is another file.

A file comes from a local copy that the user names, from the hub's cache, or from the hub itself under the hub's own
settings (`HF_HOME`, `HF_HUB_OFFLINE`, its timeouts). Only safetensors and plain tensors are read: a checkpoint that
holds Python objects could run code, and is refused.
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

TIMEOUT = 10.0
"""Seconds that the hub may take to answer; the transfer itself has the hub's own `HF_HUB_DOWNLOAD_TIMEOUT`."""
SHOWN = 4
"""Differences that an error lists of each kind."""
GITHUB = "github:"
"""Prefix of what is published outside the hub, which is never downloaded from here."""


class MissingWeights(ValueError):
    """A published file is neither in the place that the user named, nor in the cache, nor to be had from the hub."""


def cached(hub_id: str, file: str) -> Path | None:
    """The file in the hub's cache, None where it is not. Never asks the network."""
    from huggingface_hub import try_to_load_from_cache

    if hub_id.startswith(GITHUB):
        return None
    found = try_to_load_from_cache(hub_id, file)
    return Path(found) if isinstance(found, str) else None


def absent(files: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those of `(hub id, file)` that are not in the hub's cache."""
    return [(hub_id, file) for hub_id, file in files if cached(hub_id, file) is None]


def locate(hub_id: str, file: str, local: str | Path | None = None, *, argument: str = "path") -> Path:
    """Finds a published file.

    Args:
        hub_id: `owner/name` on the hub, or `github:owner/name` for what the hub does not have.
        file: Name of the file there.
        local: A local copy: the file, or the folder that holds it.
        argument: What the user sets to name a local copy, for the error message.

    Returns:
        The path of the file.

    Raises:
        MissingWeights: If it is nowhere; names hub id, file, place, and how to point at a local copy.
    """
    if local is not None:
        path = Path(local).expanduser()
        path = path / file if path.is_dir() else path
        if not path.is_file():
            advice = _advice(hub_id, file, argument)
            raise MissingWeights(f"{hub_id} {file} is not at {argument}={str(local)!r}: no file {path}; {advice}")
        return path
    found = cached(hub_id, file)
    return found if found is not None else _download(hub_id, file, argument)


def locate_any(hub_id: str, files: Sequence[str], local: str | Path | None = None, *, argument: str = "path") -> Path:
    """`locate` for what is published under several names, the preferred one first; what is at hand goes before that.

    Raises:
        MissingWeights: If none of them is to be had; the message is about the first.
    """
    if local is not None:
        folder = Path(local).expanduser()
        there = next((file for file in files if (folder / file).is_file()), files[0])
        return locate(hub_id, there, local, argument=argument)
    failures = []
    for file in sorted(files, key=lambda file: cached(hub_id, file) is None):
        try:
            return locate(hub_id, file, argument=argument)
        except MissingWeights as error:
            failures.append(error)
    raise failures[0]


def _download(hub_id: str, file: str, argument: str) -> Path:
    """Asks the hub, which may be told to stay offline."""
    from huggingface_hub import errors, hf_hub_download

    if hub_id.startswith(GITHUB):
        raise MissingWeights(f"{hub_id} {file} is not on the hub; {_advice(hub_id, file, argument)}")
    network: type[Exception] = getattr(errors, "HTTPError", OSError)  # the hub client's transport changed its name
    try:
        return Path(hf_hub_download(hub_id, file, etag_timeout=TIMEOUT))
    except (OSError, network) as error:
        raise MissingWeights(missing_text(hub_id, file, argument, error)) from error


def missing_text(hub_id: str, file: str, argument: str, error: BaseException) -> str:
    """What to tell a user whose file could not be had: which, where it was looked for, why not, and what to do."""
    from huggingface_hub import constants

    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return (
        f"{hub_id} {file} is not in the hub cache {constants.HF_HUB_CACHE}, and the hub did not give it ({reason}); "
        f"{_advice(hub_id, file, argument)}"
    )


def _advice(hub_id: str, file: str, argument: str) -> str:
    """How to get the file."""
    if hub_id.startswith(GITHUB):
        source = f"take it from https://github.com/{hub_id.removeprefix(GITHUB)}"
    else:
        source = f"fetch it once with `hf download {hub_id} {file}`"
    return f"{source}, or point at a local copy with {argument}=/path/to/{file} (or to its folder)"


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
    """A flat dictionary of tensors out of what a checkpoint holds."""
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
    """`factory.from_pretrained(source)` of transformers, whose failure to find files is told as ours.

    Args:
        factory: A class of transformers: model, tokenizer, processor, configuration.
        source: Hub id, or a local folder.
        file: The file that matters, for the error message.
        argument: What the user sets to name a local folder.
        **options: Further arguments of `from_pretrained`.

    Raises:
        MissingWeights: If the files are not to be had.
    """
    local = Path(source).expanduser()
    where = str(local) if local.is_dir() else str(source)
    try:
        return factory.from_pretrained(where, **options)
    except OSError as error:
        raise MissingWeights(missing_text(str(source), file, argument, error)) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the table of differences that transformers logs: they are judged here."""
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

    transformers itself fills what a file lacks with random numbers and a warning; here that is an error.

    Args:
        factory: A model class of transformers.
        source: Hub id, or a local folder in that format.
        argument: What the user sets to name a local folder.
        ignore: Regular expressions of harmless names that the file has beyond the model's.
        unused: Regular expressions of names that the class has, never computes with, and the file may lack.
        **options: Further arguments of `from_pretrained`.

    Raises:
        MissingWeights: If the files are not to be had.
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
