from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from diffalign.rewards.detectors import judge
from diffalign.rewards.detectors.blip_vqa import clean_question

Tiny = Callable[[str], str]
IMAGES = torch.rand(3, 3, 48, 48, generator=torch.Generator().manual_seed(0)).mul(255).round() / 255


def test_blip_asks_at_its_own_side_with_the_first_token_replaced(tiny: Tiny) -> None:
    """The answer is that of the model's `generate`, at 48 pixels where the checkpoint's table is for 32."""
    from transformers import AutoTokenizer, BlipForQuestionAnswering, BlipImageProcessor

    model = BlipForQuestionAnswering.from_pretrained(tiny("blip_vqa")).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny("blip_vqa"))
    pixels = BlipImageProcessor(size={"height": 48, "width": 48})((IMAGES[0] * 255).byte(), return_tensors="pt")
    ids = tokenizer("the red cube?", return_tensors="pt").input_ids
    ids[:, 0] = tokenizer.convert_tokens_to_ids("[ENC]")
    options = {"max_new_tokens": 1, "output_logits": True, "return_dict_in_generate": True, "do_sample": False}
    logits = model.generate(ids, **pixels, interpolate_pos_encoding=True, **options).logits[0][0]
    yes, no = logits.softmax(-1)[tokenizer.convert_tokens_to_ids(["yes", "no"])]
    ours = judge("yes", "blip_vqa", model=tiny("blip_vqa"), side=48)(IMAGES[:1], [["The red cube?"]])
    assert ours == [[pytest.approx(float(yes / (yes + no)), rel=1e-4)]]
    assert abs(ours[0][0] - 0.5) > 1e-3


def test_blip_answers_do_not_see_their_neighbours(tiny: Tiny) -> None:
    ask = judge("yes", "blip_vqa", model=tiny("blip_vqa"), side=48, batch_size=2)
    questions = [["a cat?", "the red cube in the photo of a dog?"], [], ["a dog?"]]
    together = ask(IMAGES, questions)
    assert [len(one) for one in together] == [2, 0, 1]
    for row, texts in enumerate(questions):
        for text, value in zip(texts, together[row], strict=True):
            assert ask(IMAGES[row : row + 1], [[text]])[0][0] == pytest.approx(value, rel=1e-4)
    assert together[0][0] != together[2][0]


def test_blips_question_is_lower_case_without_punctuation() -> None:
    assert clean_question('A "Red" cube (left); #1?') == "a red cube left 1?"
    assert len(clean_question("w " * 80).split(" ")) == 50


def test_depth_is_the_models_own_at_its_own_size(tiny: Tiny) -> None:
    from transformers import DPTForDepthEstimation

    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)).mul(255).round() / 255
    model = DPTForDepthEstimation.from_pretrained(tiny("dpt")).eval()
    with torch.no_grad():
        theirs = model((images - 0.5) / 0.5).predicted_depth
    ours = judge("depth", "dpt", model=tiny("dpt"), side=64)(images)
    assert ours.shape == (2, 64, 64) and torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    pictures = [
        Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy()).resize((64, 64), 2) for image in IMAGES
    ]
    pixels = torch.stack([torch.tensor(np.array(one)).permute(2, 0, 1) / 255 for one in pictures])
    with torch.no_grad():
        theirs = model((pixels - 0.5) / 0.5).predicted_depth
    ours = judge("depth", "dpt", model=tiny("dpt"), side=64)(IMAGES)
    assert ours.shape == (3, 48, 48)
    wanted = torch.nn.functional.interpolate(theirs[None], (48, 48), mode="bilinear", align_corners=True)[0]
    assert (ours - wanted).norm() < 0.01 * wanted.norm()  # a pixel in a thousand is rounded the other way


def test_dpts_file_may_lack_the_residual_that_is_never_reached(tiny: Tiny, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny("dpt"), tmp_path / "dpt"))
    state = load_file(folder / "model.safetensors")
    published = {k: v for k, v in state.items() if not k.startswith("neck.fusion_stage.layers.0.residual_layer1.")}
    assert len(published) < len(state)
    save_file(published, folder / "model.safetensors", {"format": "pt"})
    depth = judge("depth", "dpt", model=str(folder), side=64)(IMAGES)
    assert torch.equal(depth, judge("depth", "dpt", model=tiny("dpt"), side=64)(IMAGES))
    save_file({k: v for k, v in published.items() if "head" not in k}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="lacks head"):
        judge("depth", "dpt", model=str(folder), side=64)


@pytest.mark.parametrize(("role", "name", "side"), [("yes", "blip_vqa", 40), ("depth", "dpt", 50)])
def test_sides_that_are_no_multiple_are_refused(role: str, name: str, side: int, tiny: Tiny) -> None:
    with pytest.raises(ValueError, match="multiple"):
        judge(role, name, model=tiny(name), side=side)
