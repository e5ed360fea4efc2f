"""Requests and answers of a reward server: only what fits together is read."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from diffalign.rewards.bodies import JSON, pack
from diffalign.rewards.protocol import Answer, Limits, Request, read_answer, read_request, write_answer, write_request

IMAGES = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
GOOD = {"id": "7", "reward": "r", "prompts": ["a", "b"], "metadata": [{}, {}]}


def test_a_request_comes_back() -> None:
    written = write_request("7", "r", IMAGES, ["a", "b"], [{"tag": "x"}, {}], "float32")
    found = read_request(*written, Limits())
    assert found[:2] == ("7", "r") and found[3:] == (["a", "b"], [{"tag": "x"}, {}], [True, True])
    assert torch.equal(torch.stack(found.images), IMAGES)


def test_an_image_that_is_not_finite_comes_as_a_black_one_that_is_not_scored() -> None:
    images = IMAGES.clone()
    images[0, 1, 2, 2], images[1, 0, 0, 0] = torch.nan, torch.inf
    found = read_request(*write_request("7", "r", images, ["a", "b"], [{}, {}], "float16"), Limits())
    assert found.sound == [False, False] and not torch.stack(found.images).any()


def test_metadata_may_be_absent_and_sizes_may_differ() -> None:
    kind, body = pack({**GOOD, "metadata": None}, IMAGES, "png")
    larger = json.loads(pack({}, torch.zeros(1, 3, 9, 2), "png")[1])["images"][0]
    given = json.loads(body)
    given["images"][1] = larger
    found = read_request(kind, json.dumps(given).encode(), Limits())
    assert found.metadata == [{}, {}] and [tuple(image.shape) for image in found.images] == [(3, 4, 4), (3, 9, 2)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": ""}, "`id`"),
        ({"id": "x" * 65}, "`id`"),
        ({"id": 7}, "`id`"),
        ({"reward": None}, "`reward`"),
        ({"prompts": "ab"}, "`prompts`"),
        ({"prompts": ["a", 3]}, "`prompts`"),
        ({"prompts": ["a"]}, "2 images, 1 prompts"),
        ({"metadata": {"a": 1}}, "`metadata`"),
        ({"metadata": [{}]}, "1 metadata records"),
        ({"promts": []}, "unknown fields promts"),
    ],
)
def test_a_request_that_does_not_fit_together_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_request(*pack({**GOOD, **change}, IMAGES, "png"), Limits())


def test_limits_and_range_are_held() -> None:
    with pytest.raises(ValueError, match="2 images in one request; valid: 1 to 1"):
        read_request(*pack(GOOD, IMAGES, "float32"), Limits(images=1))
    with pytest.raises(ValueError, match="4 x 4 pixels, at most 15"):
        read_request(*pack(GOOD, IMAGES, "float32"), Limits(pixels=15))
    with pytest.raises(ValueError, match=r"images are in \[0, 1\]"):
        read_request(*pack(GOOD, IMAGES * 2 - 1, "float32"), Limits())
    with pytest.raises(ValueError, match="0 images"):
        read_request(JSON, json.dumps({**GOOD, "images": []}).encode(), Limits())


def test_scores_come_back_bit_for_bit_and_what_is_not_finite_is_null() -> None:
    scores = torch.randn(50, generator=torch.Generator().manual_seed(1)).tolist() + [math.nan, math.inf, 1e-45]
    request = Request("7", "r", [], [], [], [])
    written = write_answer(request, Answer(scores, {50: "broken"}))
    text = json.dumps(written, allow_nan=False).encode()
    found = read_answer(text, "7", "r", 53)
    assert torch.tensor(found.scores[:50]).tolist() == scores[:50] and found.errors == {50: "broken"}
    assert [math.isnan(score) for score in found.scores[50:]] == [True, True, False]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"<html>", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"[1, 2]", "no JSON object"),
        ({"id": "8"}, "another request"),
        ({"reward": "s"}, "another request"),
        ({"scores": [1.0]}, "not 2 scores"),
        ({"scores": [1.0, 2.0, 3.0]}, "not 2 scores"),
        ({"scores": None}, "not 2 scores"),
        ({"scores": [1.0, "2"]}, "score that is a str"),
        ({"scores": [1.0, True]}, "score that is a bool"),
        ({"scores": [1.0, 1e39]}, "not finite"),
        ({"scores": [1.0, math.nan]}, "not finite"),
        ({"scores": [1.0, 10**400]}, "beyond float32"),
        ({"errors": ["x"]}, "`errors`"),
    ],
)
def test_what_is_not_the_answer_to_this_request_is_refused(answer: Any, message: str) -> None:
    good = {"id": "7", "reward": "r", "scores": [1.0, None], "errors": {}}
    body = answer if isinstance(answer, bytes) else json.dumps({**good, **answer}).encode()
    with pytest.raises(ValueError, match=message):
        read_answer(body, "7", "r", 2)
