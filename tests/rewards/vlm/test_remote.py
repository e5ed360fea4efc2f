from __future__ import annotations

import base64
import io
import logging
import math
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

import diffalign.rewards as rewards
from diffalign.rewards import PairwiseReward
from diffalign.rewards.vlm.parsers import choice, number
from diffalign.rewards.vlm.remote import RemoteJudge, RemoteVLM, png_url

QUICK: dict[str, Any] = {"timeout": 2.0, "retries": 0, "backoff": 0.0}


def flat(*levels: float) -> Tensor:
    """One image of constant brightness per level, `(B, 3, 4, 4)`."""
    return torch.tensor(levels)[:, None, None, None].expand(-1, 3, 4, 4).clone()


def seen(request: dict[str, Any]) -> list[float]:
    """Brightness of the images in a request."""
    parts = [part for part in request["messages"][0]["content"] if part["type"] == "image_url"]
    files = [base64.b64decode(part["image_url"]["url"].partition("base64,")[2]) for part in parts]
    return [Image.open(io.BytesIO(file)).getpixel((0, 0))[0] / 255 for file in files]  # type: ignore[index]


def says(text: str) -> dict[str, Any]:
    return {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}


def sees(request: dict[str, Any]) -> dict[str, Any]:
    """P(yes) = brightness."""
    (level,) = seen(request)
    tops = [{"token": "Yes", "logprob": math.log(level)}, {"token": " no", "logprob": math.log(1 - level)}]
    return {"choices": [{"message": {"content": "x"}, "logprobs": {"content": [{"top_logprobs": tops}]}}]}


def test_images_and_prompts_arrive_and_scores_return_in_order(server: Any) -> None:
    server.script = [{"content": sees}]
    reward = RemoteVLM("org/Judge-7B", **QUICK)
    images = flat(0.2, 0.4, 0.6, 0.8)
    scores = rewards.check_contract(reward, images, ["a {prompt}", "b", "c", "d"], [{}] * 4)
    assert torch.allclose(scores, torch.tensor([0.2, 0.4, 0.6, 0.8]), atol=1e-6)
    assert (reward.name, reward.range, reward.differentiable) == ("remote_yes_judge-7b", (0.0, 1.0), False)
    texts = {asked[2]["messages"][0]["content"][-1]["text"] for asked in server.asked}
    assert 'Does this figure show "a {prompt}"? Please answer yes or no.' in texts
    assert all(asked[2]["model"] == "org/Judge-7B" and asked[2]["temperature"] == 0 for asked in server.asked)


def test_what_is_not_answered_is_nan_and_counted(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    def moody(request: dict[str, Any]) -> dict[str, Any]:
        return says("Final: 7") if seen(request)[0] > 0.5 else says("I would rather not say")

    server.script = [{"content": moody}]
    reward = RemoteVLM("m", parser="number", parser_options={"pattern": r"Final: (\d+)"}, **QUICK)
    with caplog.at_level(logging.WARNING):
        scores = reward(flat(0.2, 0.9, 0.1), ["p"] * 3, [{}] * 3)
    assert scores[1] == 7 and scores.isnan().tolist() == [True, False, True]
    assert reward.failures == {"garbage": 2}
    assert "could not score 2 of 3: garbage 2" in caplog.text and "sesame" not in caplog.text
    reward(flat(0.3), ["p"], [{}])
    assert reward.failures == {"garbage": 3}


def test_no_server_is_nan_for_all_and_a_failed_self_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFALIGN_VLM_URL", "http://127.0.0.1:9/v1")
    reward = RemoteVLM("m", **QUICK)
    assert reward(flat(0.2, 0.9), ["p"] * 2, [{}] * 2).isnan().all()
    assert reward.failures == {"unreachable": 2}
    with pytest.raises(ValueError, match="no usable answer.*unreachable"):
        reward.self_test()


def test_a_missing_address_and_a_wrong_key_stop_the_run(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server.script = [{"content": {}, "status": 401}]
    with pytest.raises(ValueError, match="401"):
        RemoteVLM("m", **QUICK)(flat(0.2), ["p"], [{}])
    monkeypatch.delenv("DIFFALIGN_VLM_URL")
    with pytest.raises(ValueError, match="set DIFFALIGN_VLM_URL"):
        RemoteVLM("m", **QUICK)(flat(0.2), ["p"], [{}])


def test_questions_are_asked_at_once_within_bounds(server: Any) -> None:
    import threading

    gate, lock, level = threading.Barrier(3, timeout=2.0), threading.Lock(), {"now": 0, "most": 0}

    def slow(request: dict[str, Any]) -> dict[str, Any]:
        with lock:
            level["now"] += 1
            level["most"] = max(level["most"], level["now"])
        gate.wait()
        with lock:
            level["now"] -= 1
        return says("3")

    server.script = [{"content": slow}]
    scores = RemoteVLM("m", parser="number", concurrency=3, **QUICK)(flat(*[0.5] * 6), ["p"] * 6, [{}] * 6)
    assert (scores == 3).all() and level["most"] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"api_key": "sesame"}, "api_key does not belong into a configuration.*DIFFALIGN_VLM_KEY"),
        ({"auth_token": "sesame"}, "does not belong into a configuration"),
        ({"key_env": "sk-sesame"}, "key_env is the name of an environment variable"),
        ({"base_url": "http://sesame"}, "base_url is not set here.*DIFFALIGN_VLM_URL"),
        ({"retrys": 3}, "did you mean `retries`"),
        ({"concurrency": 0}, "concurrency >= 1"),
        ({"timeout": 0}, "timeout > 0"),
        ({"retries": -1}, "retries >= 0"),
        ({"backoff": -1.0}, "backoff >= 0"),
        ({"template": "Is it good?"}, "needs {prompt}"),
        ({"parser": "json"}, "valid: yes, grade, number, choice"),
        ({"parser": "grade", "parser_options": {"top": 5}}, "parser 'grade' does not take"),
    ],
)
def test_wrong_arguments_are_refused_and_secrets_not_repeated(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        RemoteVLM("m", **arguments)
    assert "sesame" not in str(caught.value)


def test_a_judge_of_pairs_cancels_the_preference_for_a_place(server: Any) -> None:
    def verdict(request: dict[str, Any]) -> dict[str, Any]:
        first, second = seen(request)
        return says("left" if first > second - 0.3 else "right")

    server.script = [{"content": verdict}]
    judge = RemoteJudge("m", template="Which, for {prompt}?", parser=choice({"left": 1.0, "right": 0.0}), **QUICK)
    scores = PairwiseReward(judge)(flat(0.1, 0.2, 0.9), ["p"] * 3, [{}] * 3)
    assert scores.tolist() == [0.25, 0.25, 1.0]


def test_png_keeps_eight_bits() -> None:
    image = torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(0))
    file = io.BytesIO(base64.b64decode(png_url(image).removeprefix("data:image/png;base64,")))
    read = torch.tensor(list(Image.open(file).tobytes())).view(5, 7, 3).permute(2, 0, 1) / 255
    assert (read - image).abs().max() <= 0.5 / 255 + 1e-6
    assert number().name == "number"


def test_a_prompted_judge_gives_a_binary_reward(server: Any) -> None:
    """Reward design by prompting: the user's words ask, the answer is 1 or 0, anything else is NaN."""
    server.script = [{"content": lambda request: says({0.2: "No.", 0.8: "Yes, it is.", 0.4: "Hm."}[seen(request)[0]])}]
    reward = RemoteVLM(
        "m", template="Is {prompt} cosy?", parser="choice", parser_options={"options": {"yes": 1, "no": 0}}, **QUICK
    )
    scores = reward(flat(0.2, 0.8, 0.4), ["a room"] * 3, [{}] * 3)
    assert scores[:2].tolist() == [0.0, 1.0] and scores[2].isnan()
    assert server.asked[0][2]["messages"][0]["content"][-1]["text"] == "Is a room cosy?"
