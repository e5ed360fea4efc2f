from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor

from diffalign.rewards.text_features import PER_CALL, LengthWarning, TextFeatures


class Encoder:
    """Length and first letter of each text; remembers what it was asked."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.scale = torch.ones((), requires_grad=True)

    def __call__(self, texts: list[str]) -> Tensor:
        self.calls.append(texts)
        return self.scale * torch.tensor([[float(len(text)), float(ord(text[0]))] for text in texts])


def test_features_stand_in_the_order_of_the_prompts_and_each_is_made_once() -> None:
    encoder = Encoder()
    features = TextFeatures(encoder)
    assert features(["bb", "a", "bb"]).tolist() == [[2, 98], [1, 97], [2, 98]]
    assert features(["a", "ccc"]).tolist() == [[1, 97], [3, 99]]
    assert encoder.calls == [["bb", "a"], ["ccc"]]


def test_many_prompts_are_encoded_in_parts() -> None:
    encoder = Encoder()
    texts = [f"{i:03}" for i in range(2 * PER_CALL + 5)]
    assert TextFeatures(encoder)(texts).shape == (len(texts), 2)
    assert [len(call) for call in encoder.calls] == [PER_CALL, PER_CALL, 5]


def test_the_least_recently_used_is_forgotten() -> None:
    encoder = Encoder()
    features = TextFeatures(encoder, limit=2)
    for texts in (["a", "b"], ["a"], ["c"]):  # b goes
        features(texts)
    assert len(features) == 2
    features(["a", "c"])
    assert encoder.calls == [["a", "b"], ["c"]]
    features(["b"])
    assert encoder.calls[-1] == ["b"]


def test_a_batch_above_the_limit_is_still_whole() -> None:
    features = TextFeatures(Encoder(), limit=2)
    assert len(features(["a", "b", "c", "d"])) == 4 and len(features) == 2


def test_no_gradient_reaches_the_encoder_and_inference_mode_leaves_no_trace() -> None:
    features = TextFeatures(Encoder())
    with torch.inference_mode():
        features(["a"])
    found = features(["a", "b"])
    assert not found.requires_grad and not found.is_inference()
    (torch.ones(2, 2, requires_grad=True) * found).sum().backward()


def test_a_move_forgets() -> None:
    encoder = Encoder()
    features = TextFeatures(encoder)
    features(["a"])
    features.clear()
    features(["a"])
    assert len(encoder.calls) == 2


def test_a_memory_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        TextFeatures(Encoder(), limit=0)


def test_the_warning_comes_once_and_names_the_prompt(caplog: pytest.LogCaptureFixture) -> None:
    warn = LengthWarning("some_reward", 77)
    warn(["short", "short"], [False, False])
    assert not caplog.records
    for _ in range(3):
        warn(["short", "very long"], [False, True])
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "'some_reward' reads 77 tokens" in record.getMessage() and "very long" in record.getMessage()
