from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffalign.evaluation.judges import Detection
from diffalign.rewards.detectors import detector
from diffalign.rewards.detectors._boxes import suppress

Tiny = Callable[[str], str]
IMAGES = torch.rand(3, 3, 48, 64, generator=torch.Generator().manual_seed(0)).mul(255).round() / 255
LABELS = [["cat", "dog"], ["red cube"], []]


def table(found: list[Detection]) -> Tensor:
    return torch.tensor([[one.score, *one.box] for one in found])


@pytest.mark.parametrize("name", ["owlv2", "grounding_dino"])
def test_only_what_is_asked_for_is_found_best_first_and_inside_the_image(name: str, tiny: Tiny) -> None:
    judge = detector(name, model=tiny(name), floor=0.0, overlap=1.0)
    found = judge(IMAGES, LABELS)
    assert not found[2]
    for objects, labels in zip(found[:2], LABELS[:2], strict=True):
        assert objects and {one.label for one in objects} <= set(labels)
        rows = table(objects)
        assert (rows[:, 0].diff() <= 0).all() and (rows[:, 1:] >= 0).all()
        assert (rows[:, 3] <= 64).all() and (rows[:, 4] <= 48).all()


@pytest.mark.parametrize("name", ["owlv2", "grounding_dino"])
def test_an_image_does_not_see_its_neighbours_nor_their_labels(name: str, tiny: Tiny) -> None:
    judge = detector(name, model=tiny(name), floor=0.0, overlap=1.0)
    together = judge(IMAGES, LABELS)
    for row in (0, 1):
        alone = judge(IMAGES[row : row + 1], LABELS[row : row + 1])[0]
        assert torch.allclose(table(together[row]), table(alone), rtol=1e-3, atol=1e-3)


def test_owlv2_is_transformers_own_up_to_the_cut_at_the_edge(tiny: Tiny) -> None:
    from transformers import Owlv2ForObjectDetection, Owlv2Processor

    model = Owlv2ForObjectDetection.from_pretrained(tiny("owlv2")).eval()
    processor = Owlv2Processor.from_pretrained(tiny("owlv2"))
    texts = ["a photo of a cat", "a photo of a dog"]
    inputs = processor(text=[texts], images=[(IMAGES[0] * 255).byte()], return_tensors="pt")
    with torch.no_grad():
        output = model(**inputs)
    (theirs,) = processor.post_process_grounded_object_detection(output, threshold=0.3, target_sizes=[(48, 64)])
    ours = detector("owlv2", model=tiny("owlv2"), floor=0.3, overlap=1.0)(IMAGES[:1], [["cat", "dog"]])[0]
    order = theirs["scores"].argsort(descending=True)
    boxes = theirs["boxes"][order].clamp(min=0).minimum(torch.tensor([64.0, 48, 64, 48]))
    kept = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(1)
    assert kept.sum() > 3
    assert torch.allclose(table(ours)[:, 1:], boxes[kept], atol=0.05)
    assert [one.label == "dog" for one in ours] == theirs["labels"][order][kept].bool().tolist()


def test_grounding_dino_asks_as_its_processor_does_and_gives_each_box_one_whole_name(tiny: Tiny) -> None:
    from transformers import GroundingDinoForObjectDetection, GroundingDinoProcessor

    names = ["traffic light", "cat"]
    model = GroundingDinoForObjectDetection.from_pretrained(tiny("grounding_dino")).eval()
    processor = GroundingDinoProcessor.from_pretrained(tiny("grounding_dino"))
    inputs = processor(images=(IMAGES[0] * 255).byte(), text=[names], return_tensors="pt")
    with torch.no_grad():
        output = model(**inputs)
    probabilities = output.logits[0].sigmoid()  # [CLS] traffic light . cat . [SEP]
    ours = detector("grounding_dino", model=tiny("grounding_dino"), floor=0.0, overlap=1.0)(IMAGES[:1], [names])[0]
    wanted = torch.stack([probabilities[:, 1:3].amax(1), probabilities[:, 4]], 1)
    best = wanted.amax(1).sort(descending=True)
    assert table(ours)[:, 0].tolist() == pytest.approx(best.values.tolist(), rel=1e-3)
    assert [one.label for one in ours] == [names[int(wanted[i].argmax())] for i in best.indices]


def test_names_beyond_the_text_of_grounding_dino_are_refused(tiny: Tiny) -> None:
    with pytest.raises(ValueError, match="32 tokens"):
        detector("grounding_dino", model=tiny("grounding_dino"))(IMAGES[:1], [[f"cat {'dog ' * i}" for i in range(9)]])


def test_suppression_is_greedy_and_within_a_label() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 8], [0, 0, 10, 10]])
    scores, labels = torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor([0, 0, 0, 1])
    assert suppress(boxes, scores, labels, 0.85).tolist() == [0, 2, 3]  # 1 covers 2, but 1 is gone itself
    assert suppress(boxes, scores, labels, 1.0).tolist() == [0, 1, 2, 3]
