"""The routes: scores, listing, health, metrics; token, limits, and what a client may do wrong."""

from __future__ import annotations

import http.client
import json
import pickle
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

import diffalign.rewards as rewards
from diffalign.rewards.bodies import JSON, SAFETENSORS
from diffalign.rewards.protocol import Limits, write_request
from tests.server.conftest import call, device

Serve = Callable[..., str]
IMAGES = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
PROMPTS, RECORDS = ["p"] * 6, [{}] * 6


def post(url: str, body: bytes, kind: str = JSON, **headers: str) -> Any:
    return call(url, "POST", "/score", body, Content_Type=kind, **headers)


def wait_for(url: str, line: str) -> None:
    """Until the metrics have a line."""
    until = time.monotonic() + 10
    while line not in call(url, "GET", "/metrics").content.splitlines():
        assert time.monotonic() < until
        time.sleep(0.02)


def written(reward: str = "bright", encoding: str = "float32", prompts: list[str] = PROMPTS) -> tuple[str, bytes]:
    return write_request("7", reward, IMAGES, prompts, RECORDS, encoding)


@pytest.mark.parametrize("encoding", ["float32", "float16", "uint8", "png"])
def test_a_remote_reward_scores_as_the_reward_itself(serve: Serve, encoding: str) -> None:
    url = serve(device())
    remote = rewards.get("remote:bright", url=url, encoding=encoding, batch_size=4, retries=0)
    scores = rewards.check_contract(remote, IMAGES, PROMPTS, RECORDS)
    assert torch.allclose(scores, IMAGES.mean((1, 2, 3)), atol=1e-6 if encoding == "float32" else 1e-3)
    group = rewards.get("remote:spread", url=url, encoding=encoding)(IMAGES, PROMPTS, RECORDS)
    assert torch.allclose(group, (IMAGES - IMAGES.mean(0)).abs().mean((1, 2, 3)), atol=2e-3)


def test_the_answer_carries_id_name_scores_and_errors(serve: Serve) -> None:
    kind, body = written(prompts=["p", "wrong", "p", "nan", "p", "p"])
    reply = post(serve(device()), body, kind)
    assert reply.status == 200 and reply.content["id"] == "7" and reply.content["reward"] == "bright"
    assert [score is None for score in reply.content["scores"]] == [False, True, False, True, False, False]
    assert set(reply.content["errors"]) == {"1", "3"}


def test_the_listing_says_what_a_client_needs(serve: Serve) -> None:
    listing = call(serve(device(), limits=Limits(images=7)), "GET", "/rewards").content
    assert listing["protocol"] == 1 and {reward["name"] for reward in listing["rewards"]} == {"bright", "spread"}
    assert listing["limits"]["images"] == 7 and listing["encodings"][0] == "float32"


def test_without_the_token_nothing_but_health_is_answered(serve: Serve) -> None:
    one = device()
    url, (kind, body) = serve(one, token="sesame"), written()
    for headers in ({}, {"Authorization": "Bearer sesam"}, {"Authorization": "sesame"}, {"Authorization": "Bearer é"}):
        assert post(url, body, kind, **headers).status == 401
        assert call(url, "GET", "/rewards", **headers).status == 401
        assert call(url, "GET", "/metrics", **headers).status == 401
    assert not one.calls
    assert call(url, "GET", "/health").content == {"status": "ok", "devices": 1}
    assert post(url, body, kind, Authorization="Bearer sesame").status == 200


def test_a_wrong_token_stops_a_run_at_its_start(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    url = serve(device(), token="sesame")
    monkeypatch.setenv("DIFFALIGN_REWARD_TOKEN", "guess")
    with pytest.raises(ValueError, match="401.*DIFFALIGN_REWARD_TOKEN") as caught:
        rewards.get("remote:bright", url=url, retries=0)
    assert "guess" not in str(caught.value)
    monkeypatch.setenv("DIFFALIGN_REWARD_TOKEN", "sesame")
    assert rewards.get("remote:bright", url=url, retries=0)(IMAGES, PROMPTS, RECORDS).isfinite().all()


@pytest.mark.parametrize(
    ("kind", "body", "status", "message"),
    [
        ("text/plain", b"{}", 415, "content type 'text/plain'"),
        ("application/octet-stream", pickle.dumps([1]), 415, "content type"),
        (JSON, b"\x80\x04", 400, "not JSON"),
        (JSON, b'{"images": []}', 400, "`id`"),
        (SAFETENSORS, pickle.dumps({"images": 1}), 400, "no safetensors"),
        (SAFETENSORS, b"\xff" * 100, 400, "no safetensors"),
        (*written("brigth"), 404, "did you mean `bright`"),
        (*written(encoding="png")[:1], b'{"images": ["AAAA"]}', 400, "no PNG"),
        (JSON, b" " * 20_001, 413, "larger than 20000 bytes"),
    ],
)
def test_what_is_no_request_is_refused_with_the_reason(
    serve: Serve, kind: str, body: bytes, status: int, message: str
) -> None:
    url = serve(device(), limits=Limits(body_bytes=20_000))
    reply = post(url, body, kind)
    assert reply.status == status and message in reply.content["error"]
    assert post(url, written()[1], SAFETENSORS).status == 200, "the server goes on"


def test_an_upload_without_a_length_is_cut_off_at_the_limit(serve: Serve) -> None:
    url = serve(device(), limits=Limits(body_bytes=1000))
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    connection.request("POST", "/score", iter([b"x" * 400] * 20), {"Content-Type": JSON}, encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


def test_an_upload_that_stalls_is_given_up(serve: Serve) -> None:
    url = serve(device(), upload_seconds=0.2)
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{")
        assert b" 408 " in raw.recv(1000).splitlines()[0]


def test_a_full_queue_says_when_to_come_again(serve: Serve) -> None:
    one = device()
    url, (kind, body) = serve(one, options={"queue_size": 3}), written()
    reply = post(url, body, kind)
    assert reply.status == 503 and reply.headers["retry-after"] == "1" and not one.calls


def test_clients_at_once_share_calls(serve: Serve) -> None:
    one = device()
    url = serve(one)
    one.free.clear()
    with ThreadPoolExecutor(8) as pool:
        replies = [pool.submit(post, url, written()[1], SAFETENSORS)]
        assert one.entered.wait(10)
        replies += [pool.submit(post, url, written()[1], SAFETENSORS) for _ in range(7)]
        wait_for(url, "diffalign_reward_waiting_images 42.0")
        one.free.set()
        scores = [reply.result().content["scores"] for reply in replies]
    assert all(torch.allclose(torch.tensor(each), IMAGES.mean((1, 2, 3))) for each in scores)
    assert [size for _, size in one.calls] == [6, 32, 10]


def test_a_client_that_hangs_up_is_not_scored_for(serve: Serve) -> None:
    one = device()
    url, (kind, body) = serve(one), written()
    one.free.clear()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(post, url, body, kind)
        assert one.entered.wait(10)
        gone = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
        gone.request("POST", "/score", body, {"Content-Type": kind})
        wait_for(url, "diffalign_reward_waiting_images 6.0")
        gone.close()
        wait_for(url, "diffalign_reward_waiting_images 0.0")
        one.free.set()
        assert first.result().status == 200
    assert post(url, body, kind).status == 200
    assert [size for _, size in one.calls] == [6, 6]


def test_health_and_metrics_tell_of_a_device_that_is_down(serve: Serve) -> None:
    one = device()
    url = serve(one)
    assert post(url, written(prompts=["p", "wrong"] * 3)[1], SAFETENSORS).status == 200
    assert post(url, b"{").status == 400
    one.alive = False
    assert call(url, "GET", "/health").status == 503
    text = call(url, "GET", "/metrics").content
    for line in (
        'diffalign_reward_requests_total{status="200"} 1.0',
        'diffalign_reward_requests_total{status="400"} 1.0',
        'diffalign_reward_images_total{outcome="scored",reward="bright"} 3.0',
        'diffalign_reward_images_total{outcome="failed",reward="bright"} 3.0',
        'diffalign_reward_batch_images_sum{reward="bright"} 6.0',
        "diffalign_reward_devices_alive 0.0",
    ):
        assert line in text.splitlines()


def test_there_is_nothing_else(serve: Serve) -> None:
    url = serve(device())
    assert call(url, "GET", "/").status == 404 and call(url, "GET", "/score").status == 405
    assert json.dumps(call(url, "GET", "/rewards").content)
