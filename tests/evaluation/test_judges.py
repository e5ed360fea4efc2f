from __future__ import annotations

import torch

from diffalign.evaluation.geneval import Detection as GenevalDetection
from diffalign.evaluation.judges import Detection, Judges, judge_name


class Named:
    name = "owlv2-base"

    def __call__(self, images, labels):
        return [[Detection("dog", 1.0, (0.0, 0.0, 1.0, 1.0))] for _ in images]


class Unnamed(Named):
    name = ""


def depth(images):
    return images.mean(1)


def test_a_judge_is_called_by_its_name_else_by_its_function_or_class():
    assert [judge_name(j) for j in (Named(), Unnamed(), depth)] == ["owlv2-base", "Unnamed", "depth"]


def test_judges_list_only_those_that_are_there():
    judges = Judges(depth=depth, detect=Named())
    assert judges.names() == {"detect": "owlv2-base", "depth": "depth"}
    assert judges.detect(torch.zeros(2, 3, 4, 4), [[], []])[1][0].label == "dog"
    assert Judges().names() == {}


def test_all_scorers_share_one_detection_record():
    assert GenevalDetection is Detection
