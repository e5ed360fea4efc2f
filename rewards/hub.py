"""Where published files are: a local copy that the user names, the hub's cache, the hub.

Downloads follow the hub client's own settings (`HF_HOME`, `HF_HUB_OFFLINE`, timeouts). Without a network that client
retries each file of a model for half a minute, so the connection is tested once before; if it fails, only the cache is
read.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

PROBE_SECONDS = 5.0
"""Time that the hub has to answer at all."""
REMEMBERED_SECONDS = 60.0
"""How long the answer to that counts."""
TIMEOUT = 10.0
"""Seconds that the hub may take to answer for a file; the transfer itself has its own `HF_HUB_DOWNLOAD_TIMEOUT`."""
GITHUB = "github:"
"""Prefix of what is published outside the hub, which is never downloaded from here."""

_probed: dict[str, tuple[float, bool]] = {}
"""Address of the hub -> time of the last test, and whether it answered."""


class MissingWeights(ValueError):
    """A published file is neither in the place that the user named, nor in the cache, nor available from the hub."""


def offline() -> bool:
    """Whether the user has set `HF_HUB_OFFLINE`."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def reachable() -> bool:
    """Whether the hub answers at all, with any status; False under `HF_HUB_OFFLINE`."""
    from huggingface_hub import constants, get_session

    address = constants.ENDPOINT
    when, answered = _probed.get(address, (0.0, False))
    if not offline() and (address not in _probed or time.monotonic() - when > REMEMBERED_SECONDS):
        try:
            get_session().head(address, timeout=PROBE_SECONDS)
            answered = True
        except Exception:  # of any HTTP library: the hub's client has changed its own twice
            answered = False
        _probed[address] = (time.monotonic(), answered)
    return answered and not offline()


@contextmanager
def cache_without_network() -> Iterator[None]:
    """If the hub cannot be reached, its client reads only its cache inside this context."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = not reachable()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def cached(hub_id: str, file: str) -> Path | None:
    """The file in the hub's cache, None where it is not. Needs no network."""
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
    """`locate` for what is published under several names, the preferred one first; cached or local files are preferred.

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
    """Downloads a file into the hub's cache."""
    from huggingface_hub import errors, hf_hub_download

    if hub_id.startswith(GITHUB):
        raise MissingWeights(f"{hub_id} {file} is not on the hub; {_advice(hub_id, file, argument)}")
    network: type[Exception] = getattr(errors, "HTTPError", OSError)  # the hub client's transport changed its name
    try:
        with cache_without_network():
            return Path(hf_hub_download(hub_id, file, etag_timeout=TIMEOUT))
    except (OSError, network) as error:
        raise MissingWeights(missing_text(hub_id, file, argument, error)) from error


def missing_text(hub_id: str, file: str, argument: str, error: BaseException) -> str:
    """The message for a file that could not be had: which, where it was looked for, why not, and what to do."""
    from huggingface_hub import constants

    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if offline():
        reason = "HF_HUB_OFFLINE is set"
    elif not reachable():
        reason = f"no answer from {constants.ENDPOINT} within {PROBE_SECONDS:g} s: is there a network?"
    return (
        f"{hub_id} {file} is not in the hub cache {constants.HF_HUB_CACHE}, and could not be downloaded ({reason}); "
        f"{_advice(hub_id, file, argument)}"
    )


def _advice(hub_id: str, file: str, argument: str) -> str:
    """How to get the file."""
    if hub_id.startswith(GITHUB):
        source = f"take it from https://github.com/{hub_id.removeprefix(GITHUB)}"
    else:
        source = f"fetch it once with `hf download {hub_id} {file}`"
    return f"{source}, or point at a local copy with {argument}=/path/to/{file} (or to its folder)"
