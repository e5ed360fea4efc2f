from __future__ import annotations

import time

import pytest
import torch

from diffalign.evaluation import geneval
from diffalign.shapes import CLASSES, COLOURS, detect, render_batch
from diffalign.shapes.render import Item, Scene


def drawn(label: str, color: str, x: float = 16.0, y: float = 16.0, radius: float = 6.0) -> Item:
    return Item(label, color, COLOURS[color], x, y, radius)


def confident(found: list) -> list:
    return [d for d in found if d.score > geneval.THRESHOLD]


def test_rendered_truth_scores_at_least_ninety_nine_percent_on_every_task(heldout):
    lines, _, images = heldout
    verdicts = [geneval.correct(d, line) for d, line in zip(detect(images), lines, strict=True)]
    tasks = geneval.summary(lines, verdicts)["tasks"]
    assert len(tasks) == 6
    assert min(tasks.values()) >= 0.99, tasks


def test_every_class_in_every_colour_is_found_and_named():
    items = [drawn(label, color) for label in CLASSES for color in COLOURS]
    found = detect(render_batch([Scene((item,)) for item in items]))
    assert [[(d.label, d.color) for d in ds] for ds in found] == [[(i.label, i.color)] for i in items]
    assert min(ds[0].score for ds in found) > geneval.COUNTING_THRESHOLD


def test_boxes_and_masks_follow_the_drawn_shape():
    for radius in (4.5, 6.0, 7.0):
        item = drawn("square", "blue", x=14.3, y=19.1, radius=radius)
        (found,) = detect(render_batch([Scene((item,))]))[0]
        assert found.box == pytest.approx(item.box, abs=0.75)
        assert found.mask.shape == (32, 32) and found.mask.sum().item() == pytest.approx((2 * radius) ** 2, rel=0.2)


@pytest.mark.parametrize("kind", ["uniform", "gaussian", "blank", "grey"])
def test_images_without_objects_give_no_detections(noise, kind):
    images = noise[kind]
    false = sum(len(confident(d)) for d in detect(images))
    assert false / len(images) <= 0.02


def test_each_image_is_judged_alone(heldout):
    images = torch.cat([heldout[2][:24], torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))])
    together = detect(images)
    alone = [detect(image[None])[0] for image in images]
    strip = [[(d.label, d.color, d.box) for d in ds] for ds in together]
    assert strip == [[(d.label, d.color, d.box) for d in ds] for ds in alone]
    for left, right in zip(sum(together, []), sum(alone, []), strict=True):
        assert left.score == pytest.approx(right.score, abs=1e-5)
        assert torch.equal(left.mask, right.mask)


def test_scores_fall_as_the_image_fades_and_blurs():
    image = render_batch([Scene((drawn("circle", "red"),))])
    values = []
    for share in (1.0, 0.8, 0.6, 0.2):
        found = detect(0.5 + (image - 0.5) * share)[0]
        values.append(found[0].score if found else 0.0)
    assert values[0] > 0.9 and values == sorted(values, reverse=True) and values[-1] == 0


def test_touching_objects_of_different_colours_are_told_apart():
    pair = Scene((drawn("square", "red", x=9, radius=6), drawn("square", "blue", x=21, radius=6)))
    assert {(d.label, d.color) for d in confident(detect(render_batch([pair]))[0])} == {
        ("square", "red"), ("square", "blue"),
    }  # fmt: skip


@pytest.mark.parametrize(("x", "radius"), [(16.0, 2.0), (16.0, 11.0)])
def test_shapes_of_sizes_the_world_does_not_draw_are_refused(x, radius):
    assert confident(detect(render_batch([Scene((drawn("circle", "red", x=x, radius=radius),))]))[0]) == []


def test_a_long_bar_is_not_a_square():
    image = torch.full((1, 3, 32, 32), 0.5)
    image[:, :, 12:20, 8:24] = torch.tensor(COLOURS["red"])[:, None, None]
    assert confident(detect(image)[0]) == []


def test_wrong_shapes_are_refused_by_name():
    with pytest.raises(ValueError, match=r"takes \(B, 3, 32, 32\)"):
        detect(torch.zeros(1, 3, 64, 64))


def test_an_empty_batch_gives_an_empty_list():
    assert detect(torch.zeros(0, 3, 32, 32)) == []


def test_detector_is_fast_enough_for_a_reward_loop(heldout):
    images = heldout[2][:288]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        detect(images)
        spent = []
        for _ in range(5):
            start = time.process_time()
            detect(images)
            spent.append((time.process_time() - start) / len(images))
    finally:
        torch.set_num_threads(threads)
    assert min(spent) <= 1e-3
