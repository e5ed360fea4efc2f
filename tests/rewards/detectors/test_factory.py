from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from diffalign.evaluation.judges import Detection, Judges
from diffalign.rewards.detectors import detector, judge, names
from diffalign.shapes import prompts, render_batch, sample_scene

Tiny = Callable[[str], str]
MODELS = {
    "mask2former": ("detect", "facebook/mask2former-swin-small-coco-instance"),
    "owlv2": ("detect", "google/owlv2-base-patch16-ensemble"),
    "grounding_dino": ("detect", "IDEA-Research/grounding-dino-base"),
    "blip_vqa": ("yes", "Salesforce/blip-vqa-capfilt-large"),
    "dpt": ("depth", "Intel/dpt-hybrid-midas"),
    "clip": ("color", "openai/clip-vit-large-patch14"),
    "vlm": ("answer", "Qwen/Qwen2.5-VL-7B-Instruct"),
}


def test_every_file_is_found_under_its_roles() -> None:
    found = {role: names(role) for role in Judges.__dataclass_fields__}
    assert found["detect"] == ["grounding_dino", "mask2former", "owlv2", "recorded", "shapes"]
    assert all(name in found[role] for name, (role, _) in MODELS.items())
    assert found["answer_probability"] == ["remote_vlm", "vlm"] and found["similarity"] == ["clip"]


@pytest.mark.parametrize("name", MODELS)
def test_missing_weights_name_hub_id_file_place_and_the_way_to_a_local_copy(name: str, no_hub: Path) -> None:
    role, hub = MODELS[name]
    with pytest.raises(ValueError) as error:
        judge(role, name, device="cpu")
    text = str(error.value)
    assert hub in text and ".json" in text or "safetensors" in text
    assert str(no_hub) in text and "model=/path/to/" in text and f"hf download {hub}" in text


def test_another_models_file_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny("mask2former"), tmp_path / "other"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_queries": 9}))
    with pytest.raises(ValueError, match="not the checkpoint of this model"):
        detector("mask2former", model=str(folder))


def test_unknown_names_and_options_are_refused_with_the_nearest(tiny: Tiny) -> None:
    with pytest.raises(ValueError, match="did you mean `mask2former`"):
        detector("mask2fromer")
    with pytest.raises(ValueError, match="did you mean `batch_size`"):
        detector("owlv2", model=tiny("owlv2"), batchsize=3)
    with pytest.raises(ValueError, match="did you mean `float16`"):
        detector("owlv2", model=tiny("owlv2"), dtype="float61")
    with pytest.raises(ValueError, match="does not take"):
        detector("shapes", model="x")
    assert detector("grounding-dino", model=tiny("grounding_dino")).describe()["name"] == "grounding_dino"  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["mask2former", "owlv2", "grounding_dino", "blip_vqa", "dpt"])
def test_half_precision_and_the_hash_of_the_weights_are_in_the_description(name: str, tiny: Tiny) -> None:
    half = judge(MODELS[name][0], name, model=tiny(name), dtype="bfloat16")
    whole = judge(MODELS[name][0], name, model=tiny(name))
    assert half.describe()["dtype"] == "bfloat16" and whole.describe()["dtype"] == "float32"  # type: ignore[attr-defined]
    assert half.describe()["revision"] == whole.describe()["revision"]  # type: ignore[attr-defined]
    assert half.describe()["revision"].startswith("sha256:")  # type: ignore[attr-defined]


def test_a_bfloat16_judge_answers_nearly_as_in_full(tiny: Tiny) -> None:
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    half, whole = (
        judge("depth", "dpt", model=tiny("dpt"), side=64, dtype=dtype)(images) for dtype in ("bfloat16", "float32")
    )
    assert half.dtype == torch.float32 and not torch.equal(half, whole)
    assert torch.corrcoef(torch.stack([half.flatten(), whole.flatten()]))[0, 1] > 0.9


def test_the_embedded_worlds_detector_sees_what_was_rendered() -> None:
    lines = [line for line in prompts("train") if line["tag"] == "colors"][:4]
    generator = torch.Generator().manual_seed(0)
    images = render_batch([sample_scene(line, generator) for line in lines])
    for found, line in zip(detector("shapes")(images, [[]] * 4), lines, strict=True):
        wanted = line["include"][0]
        assert (found[0].label, found[0].color) == (wanted["class"], wanted["color"])


def test_a_users_function_is_a_judge_and_may_return_json(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "def find(images, labels):\n"
        "    box = [0, 0, 4, 5]\n"
        "    return [[{'label': n, 'score': s, 'box': box} for n, s in zip(names, (.2, .9))] for names in labels]\n"
        "def make(score):\n"
        "    return lambda images, labels: [[{'label': 'a', 'score': score, 'box': [0, 0, 1, 1]}]] * len(images)\n"
        "def short(images, labels):\n"
        "    return []\n"
    )
    images = torch.rand(2, 3, 8, 8)
    mine = detector(f"{file}:find")
    found = mine(images, [["cat", "dog"], []])
    assert [(one.label, one.score) for one in found[0]] == [("dog", 0.9), ("cat", 0.2)] and not found[1]
    assert isinstance(found[0][0], Detection) and found[0][0].box == (0, 0, 4, 5)
    assert mine.name == "mine.py:find" and mine.describe()["revision"].startswith("sha256:")  # type: ignore[attr-defined]
    assert detector(f"{file}:make", score=0.5)(images, [[], []])[1][0].score == 0.5
    with pytest.raises(ValueError, match="0 answers for 2 images"):
        detector(f"{file}:short")(images, [[], []])


def test_other_weights_are_another_name() -> None:
    from diffalign.rewards.detectors._frozen import judge_label

    hub = "facebook/mask2former-swin-small-coco-instance"
    assert judge_label("mask2former", hub, hub) == "mask2former"
    assert judge_label("mask2former", "/copies/mask2former-swin-small-coco-instance", hub) == "mask2former"
    assert judge_label("mask2former", "facebook/mask2former-swin-Large-coco", hub) == "mask2former-swin-large-coco"


@pytest.mark.parametrize(("role", "name"), [("depth", "dpt"), ("color", "clip"), ("answer", "blip_vqa")])
def test_a_judge_moves_and_keeps_its_precision(role: str, name: str, tiny: Tiny) -> None:
    model = "shapes-clip" if name == "clip" else tiny(name)
    one: Any = judge(role, name, model=model, device="cpu")
    one.to("meta", torch.bfloat16)
    inner = getattr(one, "_judge", one)
    module = inner._model if name == "clip" else inner._frozen.model
    weight = next(iter(module.parameters()))
    assert weight.device.type == "meta" and weight.dtype == torch.float32
