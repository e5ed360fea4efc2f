from __future__ import annotations

import pytest
import torch

from diffalign.rewards.functions.credit import affine_range, caption_then_ask, checklist, prefix_credit


def test_a_checklist_is_its_satisfied_share() -> None:
    passed = torch.tensor([[1.0, 0.0, 1.0, 1.0], [1.0, torch.nan, 0.0, 0.5], [torch.nan] * 4])
    assert checklist(passed)[:2].tolist() == [0.75, 0.5]
    assert checklist(passed)[2].isnan()
    weights = torch.tensor([3.0, 1.0, 1.0, 1.0])
    assert checklist(passed, weights)[:2].tolist() == pytest.approx([5 / 6, 3.5 / 5])
    with pytest.raises(ValueError, match="not be negative"):
        checklist(passed, -weights)


def test_credit_ends_at_the_first_failure() -> None:
    passed = torch.tensor([[1, 1, 0, 1], [0, 1, 1, 1], [1, 1, 1, 1]])
    assert prefix_credit(passed).tolist() == [0.5, 0.0, 1.0]
    mask = torch.tensor([[1, 1, 0, 1], [0, 1, 1, 0], [1, 0, 0, 0]])
    assert prefix_credit(passed, mask).tolist() == [1.0, 1.0, 1.0]
    with pytest.raises(ValueError, match="at least one check"):
        prefix_credit(passed, torch.zeros(3, 4))


def test_ranges_map_onto_each_other() -> None:
    r = torch.tensor([1.0, 3.0, 5.0, 6.0])
    assert affine_range(r, (1.0, 5.0)).tolist() == [0.0, 0.5, 1.0, 1.25]
    assert affine_range(r, (1.0, 5.0), (-3.0, 3.0)).tolist() == [-3.0, 0.0, 3.0, 4.5]
    with pytest.raises(ValueError, match="low < high"):
        affine_range(r, (2.0, 2.0))


def test_what_a_caption_does_not_carry_is_not_shown() -> None:
    images = torch.zeros(3, 3, 2, 2)
    questions = [[("colour?", "Red"), ("number?", "two"), ("mood?", "calm")], [("colour?", "blue")], [("mood?", "x")]]

    def answer(caption: str, question: str) -> str | None:
        return {"colour?": caption.split()[1], "number?": caption.split()[0], "mood?": None}[question]

    scores = caption_then_ask(images, questions, lambda x: ["one red. cube", "a green ball", "a b"], answer)
    assert scores[:2].tolist() == [0.5, 0.0] and scores[2].isnan()
    with pytest.raises(ValueError, match="2 captions"):
        caption_then_ask(images, questions, lambda x: ["a", "b"], answer)
