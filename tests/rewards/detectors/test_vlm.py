from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import diffalign.rewards as rewards
from diffalign.rewards.detectors import judge
from diffalign.rewards.vlm.local import LocalVLM

IMAGES = torch.rand(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))
QUICK: dict[str, Any] = {"timeout": 2.0, "retries": 0, "backoff": 0.0}


def test_yes_is_the_reward_vqascore_with_the_same_words(qwen: Path) -> None:
    ask = judge(
        "yes", "vlm", model=str(qwen), template="{question} Please answer yes or no.", device="cpu", dtype="float32"
    )
    found = ask(IMAGES, [["Does this figure show a red cube?", "figure?"], []])
    reward = rewards.get("vqascore", model=str(qwen), question="{prompt} Please answer yes or no.")
    wanted = reward(IMAGES[[0, 0]], ["Does this figure show a red cube?", "figure?"], [{}, {}])
    assert found[1] == [] and found[0] == pytest.approx(wanted.tolist(), rel=1e-4)
    assert found[0][0] != found[0][1]


def test_the_mass_of_answers_counts_each_first_token_once(qwen: Path) -> None:
    ask = judge("answer_probability", "vlm", model=str(qwen), device="cpu", dtype="float32")
    questions = [["figure?"], ["a red cube?"]]
    once = ask(IMAGES, questions, [[["Yes"]], [["no"]]])
    assert ask(IMAGES, questions, [[["Yes", "Yes"]], [["no", "no thanks"]]]) == once
    both = ask(IMAGES, questions, [[["Yes", "No"]], [["Yes"]]])
    assert both[0][0] == pytest.approx(once[0][0] + ask(IMAGES, questions, [[["No"]], [["No"]]])[0][0], rel=1e-5)
    every = [chr(i) for i in range(33, 127)] + ["Yes", "No", "yes", "no"]
    assert 0 < ask(IMAGES, questions, [[every], [every]])[0][0] <= 1 + 1e-5


def test_words_are_the_likeliest_tokens(qwen: Path) -> None:
    vlm = LocalVLM.load(str(qwen))
    logits = vlm.next_logits([IMAGES], [vlm.question("figure?")] * 2)
    wanted = [vlm.tokenizer.decode([int(row.argmax())], skip_special_tokens=True).strip() for row in logits]
    found = judge("answer", "vlm", model=str(qwen), free=True, longest=1, device="cpu", dtype="float32")(
        IMAGES, [["figure?"], ["figure?"]]
    )
    assert found == [[wanted[0]], [wanted[1]]]


def choice(text: str, **tokens: float) -> dict[str, Any]:
    tops = [{"token": token, "logprob": math.log(p)} for token, p in tokens.items()]
    return {"choices": [{"message": {"content": text}, "logprobs": {"content": [{"top_logprobs": tops}]}}]}


def test_a_server_answers_in_order_and_failures_are_nan(server: Any) -> None:
    def answer(request: dict[str, Any]) -> Any:
        text = request["messages"][0]["content"][-1]["text"]
        return b"broken" if "dog" in text else choice(f" {text} ", Yes=0.6, no=0.2, Three=0.1)

    server.script = [{"content": answer}]
    questions = [["cat?", "dog?"], ["cube?"]]
    yes = judge("yes", "remote_vlm", model="org/Judge", **QUICK)(IMAGES, questions)
    assert yes[0][0] == pytest.approx(0.75) and math.isnan(yes[0][1]) and yes[1] == [pytest.approx(0.75)]
    mass = judge("answer_probability", "remote_vlm", model="org/Judge", **QUICK)
    found = mass(IMAGES, questions, [[["three", "3"], ["two"]], [["two"]]])
    assert found[0][0] == pytest.approx(0.1) and math.isnan(found[0][1]) and found[1] == [0]
    words = judge("answer", "remote_vlm", model="org/Judge", free=True, template="{question} One word.", **QUICK)
    assert words(IMAGES, questions) == [["cat? One word.", ""], ["cube? One word."]]
    assert "sesame" not in json.dumps([words.describe(), yes, mass.describe()], default=str)  # type: ignore[attr-defined]


def test_answers_are_yes_or_no_by_the_probabilities_unless_free(server: Any, qwen: Path) -> None:
    server.script = [{"content": lambda request: choice("Well, maybe.", yes=0.4, No=0.5)}]
    assert judge("answer", "remote_vlm", model="org/Judge", **QUICK)(IMAGES, [["cat?"], []]) == [["no"], []]
    server.script = [{"content": b"broken"}]
    assert judge("answer", "remote_vlm", model="org/Judge", **QUICK)(IMAGES, [["cat?"], []]) == [[""], []]
    questions = [["figure?", "a red cube?"], ["figure?"]]
    probabilities = judge("yes", "vlm", model=str(qwen), device="cpu", dtype="float32")(IMAGES, questions)
    words = judge("answer", "vlm", model=str(qwen), device="cpu", dtype="float32")(IMAGES, questions)
    assert words == [["yes" if p >= 0.5 else "no" for p in values] for values in probabilities]


@pytest.mark.parametrize("name", ["vlm", "remote_vlm"])
def test_a_template_without_a_question_is_refused(name: str, qwen: Path) -> None:
    with pytest.raises(ValueError, match="{question}"):
        judge("yes", name, model=str(qwen), template="Is it good?")
