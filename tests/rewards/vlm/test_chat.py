"""The client against a small server in a thread: answers that are right, late, half, garbage, refused or absent."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from diffalign.rewards.vlm import chat

Script = Callable[[Any], None] | dict[str, Any]
GOOD = {"choices": [{"message": {"role": "assistant", "content": "7"}}]}


def reply(content: Any = GOOD, status: int = 200, **headers: str) -> dict[str, Any]:
    return {"content": content, "status": status, "headers": {n.replace("_", "-"): v for n, v in headers.items()}}


def half(handler: Any) -> None:
    body = json.dumps(GOOD).encode()
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2])


def hang_up(handler: Any) -> None:
    handler.connection.close()


def dribble(handler: Any) -> None:
    """A byte now and then, for ever: no single read is late, the answer is."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    try:
        for _ in range(40):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.05)
    except OSError:
        pass


def silence(handler: Any) -> None:
    time.sleep(0.6)


def ask(**options: Any) -> dict[str, Any]:
    return chat.complete({"model": "m", "messages": []}, **{"timeout": 0.3, "retries": 0, "backoff": 0.0, **options})


def test_a_question_reaches_the_completions_of_the_server_with_the_key(server: Any) -> None:
    assert ask()["message"]["content"] == "7"
    path, headers, body, _ = server.asked[0]
    assert path == "/v1/chat/completions" and body == {"model": "m", "messages": []}
    assert headers["Authorization"] == "Bearer sesame"


def test_without_a_key_none_is_sent(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(chat.KEY_ENV)
    ask()
    assert "Authorization" not in server.asked[0][1]


@pytest.mark.parametrize(
    ("script", "cause"),
    [
        (silence, "late"),
        (dribble, "late"),
        (half, "half"),
        (hang_up, "unreachable"),
        (reply(b"<html>bad gateway</html>"), "garbage"),
        (reply({"choices": []}), "garbage"),
        (reply({"choices": [{"message": "text"}]}), "garbage"),
        (reply({"error": "overloaded"}, 503), "busy"),
        (reply({"error": "slow down"}, 429), "busy"),
        (reply({"error": "content"}, 400), "refused"),
    ],
)
def test_what_is_no_answer_is_told_by_its_cause(server: Any, script: Script, cause: str) -> None:
    server.script = [script]
    started = time.monotonic()
    with pytest.raises(chat.NoAnswer) as caught:
        ask()
    assert caught.value.cause == cause
    assert time.monotonic() - started < 1.5


@pytest.mark.parametrize("script", [half, reply(b"{"), reply({}, 500), reply({}, 429)])
def test_what_may_pass_is_tried_again(server: Any, script: Script) -> None:
    server.script = [script, script, reply()]
    assert ask(retries=2)["message"]["content"] == "7"
    assert len(server.asked) == 3


def test_attempts_are_bounded_and_wait_longer_each_time(server: Any) -> None:
    server.script = [reply({}, 500)]
    with pytest.raises(chat.NoAnswer, match="busy: 500"):
        ask(retries=2, backoff=0.05)
    times = [asked[3] for asked in server.asked]
    assert len(times) == 3
    assert times[1] - times[0] >= 0.05 and times[2] - times[1] >= 0.1


def test_the_server_says_how_long_to_wait(server: Any) -> None:
    server.script = [reply({}, 429, Retry_After="0.2"), reply()]
    ask(retries=1)
    assert server.asked[1][3] - server.asked[0][3] >= 0.2


def test_a_refused_question_is_not_asked_again(server: Any) -> None:
    server.script = [reply({}, 422)]
    with pytest.raises(chat.NoAnswer):
        ask(retries=3)
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [401, 403, 404])
def test_wrong_wiring_is_an_error_that_keeps_the_key_to_itself(server: Any, status: int) -> None:
    server.script = [reply({}, status)]
    with pytest.raises(ValueError, match=f"{status}.*{chat.KEY_ENV}.*model") as caught:
        ask(retries=3)
    assert "sesame" not in str(caught.value) and len(server.asked) == 1


@pytest.mark.parametrize(
    ("value", "message"),
    [(None, "set DIFFALIGN_VLM_URL"), ("localhost:8000", "no http"), ("http://me:pass@host/v1", "user or password")],
)
def test_the_address_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, value: str | None, message: str
) -> None:
    monkeypatch.delenv(chat.URL_ENV, raising=False)
    if value is not None:
        monkeypatch.setenv(chat.URL_ENV, value)
    with pytest.raises(ValueError, match=message) as caught:
        ask()
    assert "pass@" not in str(caught.value)


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(chat.URL_ENV, "http://127.0.0.1:9/v1")
    with pytest.raises(chat.NoAnswer, match="unreachable"):
        ask()
