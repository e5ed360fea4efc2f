"""Without a network a reward fails, or is loaded from the cache, at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import diffalign.rewards as rewards
from diffalign.rewards import hub, weights

REPO, FILE = "somebody/some-reward", "model.safetensors"


class Session:
    """The hub's HTTP client: notes what is asked, answers or fails."""

    def __init__(self, answer: Callable[[], Any]) -> None:
        self.answer, self.asked = answer, []  # type: ignore[var-annotated]

    def head(self, address: str, timeout: float) -> Any:
        self.asked.append((address, timeout))
        return self.answer()


def refuse() -> None:
    raise RuntimeError("name or service not known")


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    """An empty cache, and a network that is down."""
    import huggingface_hub
    from huggingface_hub import constants

    made = Session(refuse)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "get_session", lambda: made)
    monkeypatch.setattr(hub, "_probed", {})
    return made


@pytest.mark.parametrize("name", ["pickscore", "imagereward", "vendi"])
def test_a_reward_without_network_fails_at_once_and_says_why(session: Session, name: str) -> None:
    start = time.perf_counter()
    with pytest.raises(weights.MissingWeights, match=r"no answer from https://\S+ within 5 s.*hf download"):
        rewards.get(name)
    assert time.perf_counter() - start < 10, "the hub's client tries each file for 23 s"
    assert session.asked == [("https://huggingface.co", hub.PROBE_SECONDS)], "one question, not one per file"


def test_what_is_cached_is_loaded_without_network(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    class Factory:
        @staticmethod
        def from_pretrained(source: str) -> tuple[str, bool]:
            return source, constants.HF_HUB_OFFLINE

    assert weights.from_pretrained(Factory, REPO, FILE) == (REPO, True), "it looks at its cache alone"
    assert not constants.HF_HUB_OFFLINE, "and only for that call"
    hub._probed.clear()
    session.answer = lambda: None
    assert weights.from_pretrained(Factory, REPO, FILE) == (REPO, False)


def test_a_local_folder_asks_nobody(session: Session, tmp_path: Path) -> None:
    class Factory:
        @staticmethod
        def from_pretrained(source: str) -> str:
            return source

    assert weights.from_pretrained(Factory, tmp_path, FILE) == str(tmp_path) and not session.asked


def test_the_answer_is_remembered_for_a_while(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(hub.time, "monotonic", lambda: now[0])
    assert not hub.reachable()
    session.answer = lambda: None
    assert not hub.reachable() and len(session.asked) == 1
    now[0] += hub.REMEMBERED_SECONDS + 1
    assert hub.reachable() and hub.reachable() and len(session.asked) == 2


def test_who_is_told_to_stay_offline_asks_nobody(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(weights.MissingWeights, match="HF_HUB_OFFLINE is set"):
        weights.locate(REPO, FILE)
    assert not session.asked
