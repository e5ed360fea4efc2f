"""A protected reward: batches, deadline, retries, process, cache; what fails is NaN, what is miswired raises."""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import threading
import time

import pytest
import torch

from diffalign.rewards import ScoringFailure, check_contract, get, process, score
from diffalign.rewards.cache import ScoreCache
from diffalign.rewards.groups import GroupReward
from diffalign.rewards.guard import GuardedReward, GuardOptions, read_options
from diffalign.rewards.preparation import check_names, prepare

PROMPTS, RECORDS = ["a", "b", "c", "d"], [{}, {}, {}, {}]


class Calls:
    """Mean brightness; remembers the sizes of its batches and does what it is told before it answers."""

    def __init__(self, before=lambda number: None):
        self.sizes, self._before = [], before

    def __call__(self, images, prompts, metadata):
        self.sizes.append(len(images))
        self._before(len(self.sizes))
        return images.mean((1, 2, 3))


def failing(*numbers):
    def before(number):
        if number in numbers:
            raise ScoringFailure("no answer")

    return before


def guarded(function, **options):
    given = {key: options.pop(key) for key in ("spec", "arguments", "cache", "identity") if key in options}
    return GuardedReward(get(function), GuardOptions(**{"backoff": 0.0, **options}), **given)


def ask(reward, images, **options):
    return score({"r": reward}, images, PROMPTS[: len(images)], RECORDS[: len(images)], **options)["r"]


def test_a_guarded_reward_is_a_reward_with_the_same_scores(images):
    calls = Calls()
    reward = guarded(calls, batch_size=3)
    assert torch.equal(check_contract(reward, images, PROMPTS, RECORDS), images.mean((1, 2, 3)))
    assert calls.sizes[:2] == [3, 1]


def test_a_failure_is_tried_again_and_waits_longer_each_time(images, monkeypatch):
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    calls = Calls(failing(1, 2))
    assert torch.equal(ask(guarded(calls, retries=2, backoff=0.5), images), images.mean((1, 2, 3)))
    assert waits == [0.5, 1.0] and calls.sizes == [4, 4, 4]


def test_what_fails_in_the_end_is_nan_for_its_batch_alone_and_is_told(images, caplog):
    calls = Calls(failing(2, 3))
    with caplog.at_level(logging.WARNING):
        found = ask(guarded(calls, retries=1, batch_size=2), images)
    assert found.isnan().tolist() == [False, False, True, True]
    assert "could not score 2 images in 2 tries: no answer" in caplog.text


def test_a_late_call_is_left_behind_and_the_next_one_is_not_held_up(images):
    free = threading.Event()
    calls = Calls(lambda number: free.wait(20) if number == 1 else None)
    start = time.perf_counter()
    found = ask(guarded(calls, timeout=0.1, retries=1), images)
    assert time.perf_counter() - start < 10 and torch.equal(found, images.mean((1, 2, 3)))
    free.set()


def test_a_timeout_that_the_reward_raises_itself_is_no_lateness(images):
    def own(images, prompts, metadata):
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        ask(guarded(own, timeout=5.0, retries=3), images)


@pytest.mark.parametrize("options", [{}, {"timeout": 5.0}])
def test_a_mistake_in_the_wiring_passes_through_at_once(images, options):
    calls = Calls(lambda number: {}["missing key"])
    with pytest.raises(KeyError, match="missing key"):
        ask(guarded(calls, retries=3, **options), images)
    assert calls.sizes == [4]
    with pytest.raises(ValueError, match="returned shape"):
        ask(guarded(lambda i, p, m: torch.zeros(len(i), 1), batch_size=2), images)


def test_a_gradient_comes_through_and_is_never_remembered(images, tmp_path):
    reward = get(lambda i, p, m: i.square().mean((1, 2, 3)))
    reward.differentiable = True
    reward = GuardedReward(reward, GuardOptions(timeout=5.0), cache=ScoreCache(tmp_path), identity="x")
    leaf = images.clone().requires_grad_()
    ask(reward, leaf, grad=True).sum().backward()
    assert torch.allclose(leaf.grad, 2 * images / images[0].numel()) and not (tmp_path / "scores.sqlite").exists()


def test_only_what_is_not_known_is_asked(images, tmp_path):
    calls, cache = Calls(), ScoreCache(tmp_path / "here")
    first = ask(guarded(calls, cache=cache, identity="x"), images[:2])
    again = ask(guarded(calls, cache=ScoreCache(tmp_path / "here"), identity="x"), images)
    assert calls.sizes == [2, 2] and torch.equal(again, images.mean((1, 2, 3))) and torch.equal(first, again[:2])
    ask(guarded(calls, cache=cache, identity="y"), images[:1])
    assert calls.sizes == [2, 2, 1], "another reward"


def test_a_failure_is_not_remembered(images, tmp_path):
    calls, cache = Calls(failing(1)), ScoreCache(tmp_path)
    assert ask(guarded(calls, cache=cache, identity="x"), images).isnan().all()
    assert ask(guarded(calls, cache=cache, identity="x"), images).isfinite().all()


def test_a_reward_that_compares_images_is_never_remembered_nor_parted(images, tmp_path):
    spread = GroupReward(lambda images, prompts, metadata: float(images.std()), name="spread")
    reward = GuardedReward(spread, GuardOptions(), cache=ScoreCache(tmp_path), identity="x")
    records = [{"group_id": 0}] * 4
    score({"r": reward}, images, PROMPTS, records)
    assert not (tmp_path / "scores.sqlite").exists()
    with pytest.raises(ValueError, match="split its groups"):
        GuardedReward(spread, GuardOptions(batch_size=2))


@pytest.fixture
def user_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "import os, time\n"
        "from diffalign.rewards import ScoringFailure\n"
        "def score(images, prompts, metadata, factor=1.0):\n"
        "    for prompt in prompts:\n"
        "        if prompt == 'sleep': time.sleep(60)\n"
        "        if prompt == 'die': os._exit(7)\n"
        "        if prompt == 'fail': raise ScoringFailure('no judge')\n"
        "        if prompt == 'wrong': raise KeyError('tag')\n"
        "    return [factor * float(image.mean()) if prompt != 'pid' else os.getpid()\n"
        "            for image, prompt in zip(images, prompts)]\n"
    )
    return path


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_a_process_scores_elsewhere_and_is_killed_when_late(images, user_file, caplog, monkeypatch, start):
    context = multiprocessing.get_context(start)  # a spawned one imports torch anew: seconds
    monkeypatch.setattr(process, "get_context", lambda method: context)
    spec = f"{user_file}:score"
    options = {"score": {"worker": "process", "timeout": 30.0}}
    reward = prepare([spec], {spec: {"factor": 2.0}}, options=options)["score"]

    def one(prompt):
        return float(score({"score": reward}, images[:1], [prompt], [{}])["score"])

    assert math.isclose(one("a"), 2 * float(images[0].mean()), rel_tol=1e-6)
    assert one("pid") not in (os.getpid(), one("a"))
    assert math.isnan(one("fail")) and "no judge" in caplog.text
    with pytest.raises(ValueError, match="KeyError: 'tag'"):
        one("wrong")
    assert math.isnan(one("die")) and "died with status 7" in caplog.text
    started = one("pid")  # a new process
    reward.options = reward.options._replace(timeout=0.2)
    assert math.isnan(one("sleep")) and "no answer within 0.2 s" in caplog.text
    reward.options = reward.options._replace(timeout=30.0)
    assert one("pid") != started
    reward._process.close()


def test_a_reward_given_as_an_object_cannot_go_to_a_process():
    with pytest.raises(ValueError, match="registered name or file.py:function"):
        guarded(Calls(), worker="process")


def test_settings_are_found_by_either_name_and_others_stay_unwrapped(images):
    made = prepare(["jpeg", Calls()], options={"jpeg": {"batch_size": 1}}, routes={"Calls": {"tag": "x"}})
    assert [type(reward).__name__ for reward in made.values()] == ["GuardedReward", "RoutedReward"]
    assert made["jpeg_compressibility"].options.batch_size == 1
    found = score(made, images, PROMPTS, [{"tag": "x"}, {}, {}, {"tag": "y"}])
    assert found["Calls"].isfinite().tolist() == [True, False, False, False]
    assert found["jpeg_compressibility"].isfinite().all()
    assert made["jpeg_compressibility"].self_test() is None, "what is not guarded is the reward's own"
    with pytest.raises(ValueError, match="did you mean `jpeg`"):
        check_names("reward_options", {"jpg": {}}, ["jpeg", "shapes"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"timout": 3}, "did you mean `timeout`"),
        ({"timeout": 0}, "timeout > 0"),
        ({"timeout": "soon"}, "timeout > 0"),
        ({"retries": -1}, "retries one >= 0"),
        ({"retries": 1.5}, "retries one >= 0"),
        ({"batch_size": 0}, "batch_size is a whole number"),
        ({"backoff": math.inf}, "backoff"),
        ({"worker": "thred"}, "valid: thread, process"),
        ({"device": "cuda:99"}, "no device 'cuda:99' here"),
        ({"device": "gpu"}, "no device 'gpu' here"),
        ({"device": "cpu", "worker": "process"}, "leave out device"),
        ([], "must be a mapping"),
    ],
)
def test_mistakes_in_options_name_the_way_out(given, message):
    with pytest.raises(ValueError, match=message):
        read_options("r", given)


def test_one_reward_need_not_be_in_a_list(images):
    def level(images, prompts, metadata):
        return images.mean((1, 2, 3))

    for source, name in (("jpeg", "jpeg_compressibility"), (level, "level"), (get("jpeg"), "jpeg_compressibility")):
        assert list(prepare(source)) == list(prepare([source])) == list(prepare((source,))) == [name]
    with pytest.raises(ValueError, match=r"a mapping .*got 'jpeg'.*prepare"):
        score("jpeg", images, PROMPTS, RECORDS)
