"""The client of a reward server, against small servers that answer right, wrong, late, half, or with garbage."""

from __future__ import annotations

import json
import logging
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import diffalign.rewards as rewards
from diffalign.rewards.identity import identity
from diffalign.rewards.protocol import Limits, read_request
from diffalign.rewards.remote import RemoteReward

ROOT = Path(__file__).resolve().parents[2]
QUICK: dict[str, Any] = {"timeout": 0.5, "retries": 0, "backoff": 0.0, "concurrency": 1}
BRIGHT = {"name": "bright", "spec": "b.py:bright", "scope": "pointwise", "range": [0, 1], "needs": [], "version": "1"}
GROUP = {"name": "spread", "scope": "group", "needs": ["group_ids"]}


class Handler(BaseHTTPRequestHandler):
    """Answers by mean brightness, or as the server's `spoil` says."""

    server: Any

    def do_GET(self) -> None:
        self.reply(self.server.listing)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        asked = read_request(self.headers["Content-Type"], body, Limits())
        self.server.asked.append((asked, dict(self.headers)))
        scores = [float(image.mean()) for image in asked.images]
        answer = {"id": asked.id, "reward": asked.reward, "scores": scores, "errors": {}}
        spoil = self.server.spoil.pop(0) if self.server.spoil else None
        spoiled = answer if spoil is None else spoil(self, answer)
        if spoiled is not None:
            self.reply(spoiled)

    def reply(self, content: Any, status: int = 200) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Silent."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    made: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.daemon_threads = True
    made.spoil, made.asked = [], []
    made.listing = {"protocol": 1, "rewards": [BRIGHT, GROUP], "encodings": ["float32", "uint8", "png"]}
    threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setenv("DIFFALIGN_REWARD_URL", f"http://127.0.0.1:{made.server_port}")
    monkeypatch.setenv("DIFFALIGN_REWARD_TOKEN", "sesame")
    yield made
    made.shutdown()
    made.server_close()


def batch(count: int, size: int = 4) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(count))


def ask(reward: Any, images: Tensor) -> Tensor:
    return reward(images, [str(i) for i in range(len(images))], [{"position": i} for i in range(len(images))])


def test_a_remote_reward_is_a_reward_with_the_same_scores(server: Any) -> None:
    reward = rewards.get("remote:bright", batch_size=3, **QUICK)
    images = batch(8)
    scores = rewards.check_contract(reward, images, ["p"] * 8, [{}] * 8)
    assert torch.allclose(scores, images.mean((1, 2, 3)), atol=1e-6)
    assert (reward.name, reward.scope, reward.range, reward.differentiable) == ("bright", "pointwise", (0, 1), False)
    assert [len(asked.images) for asked, _ in server.asked[:3]] == [3, 3, 2]
    assert len({asked.id for asked, _ in server.asked}) == len(server.asked)
    assert all(headers["Authorization"] == "Bearer sesame" for _, headers in server.asked)
    assert reward.self_test() is None


def test_prompts_and_metadata_stay_with_their_images(server: Any) -> None:
    ask(RemoteReward("b.py:bright", **{**QUICK, "batch_size": 2, "concurrency": 4}), batch(5))
    asked = sorted((a.prompts, a.metadata) for a, _ in server.asked)
    assert asked[2] == (["4"], [{"position": 4}]) and asked[1] == (["2", "3"], [{"position": 2}, {"position": 3}])
    assert all(a.reward == "bright" for a, _ in server.asked)


def test_images_that_are_compared_go_in_one_request(server: Any) -> None:
    reward = RemoteReward("spread", batch_size=2, **QUICK)
    assert reward.scope == "group" and len(ask(reward, batch(5))) == 5
    assert [len(asked.images) for asked, _ in server.asked] == [5]


def test_requests_stay_within_the_limits_of_the_server(server: Any) -> None:
    server.listing["limits"] = {"body_bytes": 9000, "images": 100, "pixels": 64}
    ask(RemoteReward("bright", **QUICK), batch(4))
    assert [len(asked.images) for asked, _ in server.asked] == [2, 2]
    with pytest.raises(ValueError, match="9 x 9 is beyond the server's limits"):
        ask(RemoteReward("bright", **QUICK), batch(1, 9))


def late(handler: Any, answer: Any) -> None:
    time.sleep(0.8)


def half(handler: Any, answer: Any) -> None:
    body = json.dumps(answer).encode()
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2])


def hang_up(handler: Any, answer: Any) -> None:
    handler.connection.close()


def status(code: int) -> Callable[..., None]:
    return lambda handler, answer: handler.reply({"error": "because of sesame"}, code)


def changed(**fields: Any) -> Callable[..., Any]:
    return lambda handler, answer: {**answer, **fields}


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (late, "late"),
        (half, "half"),
        (hang_up, "unreachable"),
        (lambda *_: b"\x80\x04garbage", "garbage"),
        (changed(id="0" * 32), "garbage"),
        (changed(reward="other"), "garbage"),
        (changed(scores=[0.5]), "garbage"),
        (changed(scores=[0.5, math.nan]), "garbage"),
        (status(500), "busy"),
        (status(413), "refused"),
    ],
)
def test_what_is_no_answer_is_nan_with_one_warning_and_spoils_no_other(
    server: Any, spoil: Any, cause: str, caplog: pytest.LogCaptureFixture
) -> None:
    reward, images = RemoteReward("bright", batch_size=2, **QUICK), batch(6)
    server.spoil = [None, spoil, None]
    with caplog.at_level(logging.WARNING):
        found = ask(reward, images)
    assert found.isnan().tolist() == [False, False, True, True, False, False]
    assert torch.allclose(found[[0, 1, 4, 5]], images[[0, 1, 4, 5]].mean((1, 2, 3)))
    assert reward.failures == {cause: 2}
    (record,) = caplog.records
    assert f"could not score 2 of 6: {cause} 2" in record.getMessage() and "sesame" not in caplog.text


def test_answers_that_change_places_are_found(server: Any) -> None:
    """Each of two requests at once gets the answer to the other one."""
    gate, kept = threading.Barrier(2, timeout=2.0), {}

    def swap(handler: Any, answer: Any) -> Any:
        kept[answer["id"]] = answer
        gate.wait()
        (other,) = (kept[id] for id in kept if id != answer["id"])
        return other

    reward = RemoteReward("bright", **{**QUICK, "batch_size": 1, "concurrency": 2})
    server.spoil = [swap, swap]
    assert ask(reward, batch(2)).isnan().all() and reward.failures == {"garbage": 2}
    assert ask(reward, batch(2)).isfinite().all()


def test_what_may_pass_is_tried_again(server: Any) -> None:
    server.spoil = [half, changed(id="x"), None]
    reward, images = RemoteReward("bright", **{**QUICK, "retries": 2}), batch(3)
    assert torch.allclose(ask(reward, images), images.mean((1, 2, 3))) and not reward.failures


def test_images_that_the_server_could_not_score_are_nan_with_its_reason(
    server: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server.spoil = [changed(scores=[0.5, None, 0.25], errors={"1": "KeyError: 'tag'"})]
    with caplog.at_level(logging.WARNING):
        found = ask(RemoteReward("bright", **QUICK), batch(3))
    assert found.isnan().tolist() == [False, True, False] and found[2] == 0.25
    assert "could not score 1 of 3: not scored 1; first: KeyError: 'tag'" in caplog.text


@pytest.mark.parametrize("code", [401, 403, 404])
def test_a_wrong_token_or_name_is_an_error_that_keeps_the_token_to_itself(server: Any, code: int) -> None:
    reward = RemoteReward("bright", **QUICK)
    server.spoil = [status(code)]
    with pytest.raises(ValueError, match=rf"{code}.*because of \*\*\*.*DIFFALIGN_REWARD_TOKEN"):
        ask(reward, batch(1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"token": "sesame"}, "token does not belong into a configuration.*DIFFALIGN_REWARD_TOKEN"),
        ({"api_key": "sesame"}, "does not belong into a configuration"),
        ({"token_env": "hf-sesame"}, "token_env is the name of an environment variable"),
        ({"url": "localhost:8900"}, "url is no http"),
        ({"url": "http://me:sesame@host"}, "url holds a user or password"),
        ({"retrys": 3}, "did you mean `retries`"),
        ({"batch_size": 0}, "batch_size >= 1"),
        ({"timeout": 0}, "timeout > 0"),
        ({"encoding": "float16"}, "'float16' is not read by the server; valid: float32, uint8, png"),
        ({"name": "brigth"}, "unknown reward of the server of DIFFALIGN_REWARD_URL: `brigth`; did you mean `bright`"),
    ],
)
def test_mistakes_in_the_arguments_name_the_way_out(server: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        RemoteReward(**{"name": "bright", **QUICK, **arguments})
    assert "sesame" not in str(caught.value).replace("hf-sesame", "")


def test_no_server_another_protocol_or_no_reward_server_is_an_error_at_once(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="does not answer.*unreachable.*serve-rewards"):
        RemoteReward("bright", url="http://127.0.0.1:9", **QUICK)
    for listing, message in (
        ({**server.listing, "protocol": 2}, "protocol 2"),
        ({"choices": []}, "no reward server"),
        (b"<html>", "no reward server"),
        ({**server.listing, "rewards": [{**BRIGHT, "scope": "listwise"}]}, "no reward server.*listwise"),
        ({**server.listing, "encodings": ["pickle"]}, "reads none of"),
    ):
        server.listing = listing
        with pytest.raises(ValueError, match=message):
            RemoteReward("bright", **QUICK)
    monkeypatch.delenv("DIFFALIGN_REWARD_URL")
    with pytest.raises(ValueError, match="give url, or set DIFFALIGN_REWARD_URL"):
        RemoteReward("bright", **QUICK)


def test_another_version_on_the_server_is_another_reward_to_the_cache(server: Any) -> None:
    first = RemoteReward("bright", **QUICK)
    server.listing["rewards"] = [{**BRIGHT, "version": "2"}]
    names = {identity("remote:bright", {}, reward) for reward in (first, RemoteReward("bright", **QUICK))}
    assert len(names) == 2
    with pytest.raises(ValueError, match="another version"):
        first.self_test()


def test_the_example_server_needs_no_torch_and_speaks_the_protocol(tmp_path: Path) -> None:
    script = tmp_path / "server.py"
    script.write_text((ROOT / "scripts" / "own_reward_server.py").read_text())
    guard = "import sys, runpy; sys.modules.update(torch=None, diffalign=None, numpy=None); sys.argv = sys.argv[1:];"
    command = [sys.executable, "-c", f"{guard} runpy.run_path(sys.argv[0], run_name='__main__')", script, "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=tmp_path)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        reward = rewards.get("remote:warmth", url=url, timeout=10.0, retries=0)
        images = (batch(5) * 255).round() / 255
        scores = rewards.check_contract(reward, images, ["p"] * 5, [{}] * 5)
        assert torch.allclose(scores, images[:, 0].mean((1, 2)) - images[:, 2].mean((1, 2)), atol=1e-6)
        with pytest.raises(ValueError, match="valid: warmth"):
            rewards.get("remote:wramth", url=url, timeout=10.0)
    finally:
        process.kill()
        process.wait()
