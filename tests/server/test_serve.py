"""The command from outside: it refuses to be exposed, stops in good order, and no client gets another's score."""

from __future__ import annotations

import json
import math
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

import diffalign.rewards as rewards
from diffalign.server.serve import Options, check_exposure, serve
from tests.server.conftest import call

REWARDS = """
import time

def coded(images, prompts, metadata):
    "A whole number in one pixel, and the mean of all the others behind the point."
    if "slow" in prompts:
        time.sleep(1.5)
    code = images[:, 0, 0, 0].double() * 8192
    rest = (images.double().sum((1, 2, 3)) - images[:, 0, 0, 0]) / (images[0].numel() - 1)
    return (code.round() + rest / 4).float()
"""
Start = Callable[..., tuple[subprocess.Popen[str], str]]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Runs `diffalign serve-rewards` on `coded`; the process and its address."""
    pytest.importorskip("uvicorn", reason="the server extra is not installed")
    pytest.importorskip("prometheus_client", reason="the server extra is not installed")
    (tmp_path / "mine.py").write_text(REWARDS)
    running = []

    def begin(port: int = 0) -> tuple[subprocess.Popen[str], str]:
        words = ["serve-rewards", "--reward", f"{tmp_path}/mine.py:coded", "--port", str(port), "--device", "cpu"]
        command = [sys.executable, "-m", "diffalign", *words]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        running.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "serving coded at http://127.0.0.1:" in line
        return process, line.split(" at ")[1].split()[0]

    yield begin
    for process in running:
        process.kill()
        process.wait()


@pytest.mark.parametrize(("host", "token"), [("127.0.0.1", ""), ("::1", ""), ("localhost", ""), ("0.0.0.0", "x")])
def test_loopback_needs_no_token(host: str, token: str) -> None:
    check_exposure(host, token)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "gpu2", ""])
def test_any_other_address_needs_one(host: str) -> None:
    with pytest.raises(ValueError, match="DIFFALIGN_REWARD_TOKEN"):
        check_exposure(host, "")


def test_without_its_libraries_it_says_how_to_install_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ImportError, match=r"pip install 'diffalign\[server\]'"):
        serve({"jpeg": {}}, ["cpu"], Options(port=0), lambda url, names: None)


def test_a_port_that_is_taken_is_told_before_a_model_is_loaded() -> None:
    pytest.importorskip("uvicorn", reason="the server extra is not installed")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="choose another --port"):
            serve({"nothing": {}}, ["cpu"], Options(port=taken.getsockname()[1]), lambda url, names: None)


@pytest.mark.slow
def test_a_reward_that_cannot_be_made_is_an_error_before_it_serves() -> None:
    pytest.importorskip("uvicorn", reason="the server extra is not installed")
    with pytest.raises(ValueError, match="unknown reward .jpgs.; did you mean .jpeg."):
        serve({"jpgs": {}}, ["cpu"], Options(port=0), lambda url, names: pytest.fail("it serves"))


@pytest.mark.slow
def test_it_stops_when_what_was_asked_is_answered(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFALIGN_REWARD_TOKEN", "sesame")
    process, url = start()
    assert call(url, "GET", "/rewards").status == 401
    reward = rewards.get("remote:coded", url=url, retries=0)
    assert "sesame" not in json.dumps(vars(reward), default=str)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(reward, torch.zeros(1, 3, 4, 4), ["slow"], [{}])
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        assert asked.result().tolist() == [0.0]
    assert process.wait(20) == 0
    assert process.stdout is not None and process.stdout.read().endswith("stopped\n")


@pytest.mark.slow
def test_a_device_whose_process_dies_comes_back(start: Start) -> None:
    process, url = start()
    (device,) = [c for c in psutil.Process(process.pid).children() if "spawn_main" in " ".join(c.cmdline())]
    reward = rewards.get("remote:coded", url=url, retries=0)
    device.kill()
    image, expected = coded(7)
    first, until = reward(image, ["p"], [{}]), time.monotonic() + 60
    assert first.isnan().all() and reward.failures == {"not scored": 1}
    while call(url, "GET", "/health").status != 200:
        assert time.monotonic() < until
        time.sleep(0.1)
    assert abs(float(reward(image, ["p"], [{}])[0]) - expected) < 1e-3


def coded(number: int) -> tuple[torch.Tensor, float]:
    """An image `(1, 3, 6, 6)` that holds a number, and its score."""
    image = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(number))
    image[0, 0, 0, 0] = number / 8192
    return image, number + float(image[0].flatten()[1:].mean()) / 4


class Client:
    """Asks `count` times for one image each; keeps what is wrong, and counts answers and NaN."""

    def __init__(self, reward: Any, first: int, count: int, done: Callable[[], None]) -> None:
        self.reward, self.numbers, self.done = reward, range(first, first + count), done
        self.answered, self.nan, self.wrong = 0, 0, []

    def run(self) -> None:
        for number in self.numbers:
            image, expected = coded(number)
            score = float(self.reward(image, ["p"], [{}])[0])
            if math.isnan(score):
                self.nan += 1
                time.sleep(0.2)
            elif abs(score - expected) < 1e-3:
                self.answered += 1
            else:
                self.wrong.append((number, score))
            self.done()


@pytest.mark.slow
def test_no_answer_is_lost_or_swapped_when_the_server_is_killed_and_started_again(start: Start, tmp_path: Path) -> None:
    """Eight clients, 4,000 requests, a training run beside them; half of the clients ask again, half do not."""
    from tests.trainers.small_runs import events, small_trainer

    port = free_port()
    first, url = start(port)
    count, lock, nearly, half = {"done": 0}, threading.Lock(), threading.Event(), threading.Event()

    def done() -> None:
        with lock:
            count["done"] += 1
            if count["done"] == 1900:
                nearly.set()
            if count["done"] == 2000:
                half.set()

    patient = {"retries": 9, "backoff": 0.2, "timeout": 20.0}
    impatient = {"retries": 0, "timeout": 20.0}
    made = [rewards.get("remote:coded", url=url, **(impatient if i % 2 else patient)) for i in range(8)]
    clients = [Client(reward, 500 * i, 500, done) for i, reward in enumerate(made)]
    trainer = small_trainer(
        tmp_path / "run",
        rewards=["remote:coded"],
        reward_kwargs={"remote:coded": {"url": url, **patient}},
        max_train_steps=24,
    )
    run = threading.Thread(target=trainer.train)
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(client.run) for client in clients]
        assert nearly.wait(300)
        run.start()
        assert half.wait(300) and run.is_alive()
        first.kill()
        first.wait()
        start(port)
        for each in asked:
            each.result(300)
    run.join(300)
    assert not run.is_alive() and count["done"] == 4000
    assert not [wrong for client in clients for wrong in client.wrong]
    assert all(client.nan == 0 and client.answered == 500 for client in clients[::2])
    assert 0 < sum(client.nan for client in clients[1::2]) < 2000
    steps = events(tmp_path / "run")
    assert len(steps) == 24 and all(step["reward/coded/nan"] == 0 for step in steps if "reward/coded/nan" in step)
