"""Which judges a suite gets."""

from __future__ import annotations

import pytest

from diffalign.commands._suite_judges import make_judges, named_judges, needed_roles, read_options
from diffalign.evaluation import suites


def wanted(name: str, detector: str | None = None, *judges: str) -> dict[str, str]:
    return needed_roles([suites.get(name)], named_judges(detector, judges))


def test_what_is_not_named_is_the_nearest_to_the_publications() -> None:
    assert wanted("geneval") == {"detect": "mask2former", "color": "clip"}
    assert wanted("compbench_color") == {"yes": "blip_vqa"}
    assert wanted("compbench_3d_spatial") == {"detect": "grounding_dino", "depth": "dpt"}
    assert wanted("dpg") == {"answer": "vlm"} and wanted("geneval2") == {"answer_probability": "vlm"}
    assert wanted("hpdv2") == {"score": "hpsv2"}


def test_what_is_named_counts_and_none_leaves_out() -> None:
    assert wanted("geneval", "owlv2") == {"detect": "owlv2", "color": "clip"}
    assert wanted("geneval", "shapes") == {"detect": "shapes"}
    assert wanted("geneval", "mine.py:find", "color=none") == {"detect": "mine.py:find"}
    assert wanted("geneval", "shapes", "color=clip") == {"detect": "shapes", "color": "clip"}
    with pytest.raises(ValueError, match="given twice"):
        named_judges("owlv2", ["detect=shapes"])
    with pytest.raises(ValueError, match="detect=owlv2"):
        named_judges(None, ["owlv2"])


def test_options_go_to_the_judge_of_their_role() -> None:
    options = read_options("{color: {model: shapes-clip, batch_size: 2, device: meta}}")
    judges = make_judges({"detect": "shapes", "color": "clip"}, options, "cpu", None)
    assert next(iter(judges.color._model.parameters())).device.type == "meta"  # type: ignore[union-attr]
    assert judges.names() == {"detect": "shapes", "color": "shapes-clip"}
    with pytest.raises(ValueError, match="role in --judge_kwargs"):
        make_judges({"detect": "shapes"}, options, "cpu", None)
    for text in ("[1]", "{color: 3}", "{color: ["):
        with pytest.raises(ValueError, match="judge_kwargs"):
            read_options(text)


def test_every_default_is_a_judge_of_its_role() -> None:
    from diffalign.commands._suite_judges import COCO, DEFAULTS, OPEN_VOCABULARY
    from diffalign.rewards.detectors import names

    for role, name in [*DEFAULTS.items(), ("detect", COCO), ("detect", OPEN_VOCABULARY)]:
        assert name in names(role)
