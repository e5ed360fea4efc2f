from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

import diffalign.rewards as rewards
from diffalign.rewards.align_harmonic import AlignHarmonicReward
from diffalign.rewards.weights import MissingWeights

PROMPTS = ["a dog", "a cat on a chair", "a cube"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny ALIGN (EfficientNet and BERT) in the published format, with ALIGN's transform to [-1, 1]."""
    from transformers import AlignConfig, AlignModel, AlignProcessor, BertTokenizer, EfficientNetImageProcessor

    path = tmp_path_factory.mktemp("models") / "tiny-align"
    path.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "cat", "on", "chair", "cube"]
    (path / "vocab.txt").write_text("\n".join(words))
    text = {"vocab_size": len(words), "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {
        "image_size": 28, "width_coefficient": 0.1, "depth_coefficient": 0.1, "hidden_dim": 12, "in_channels": [32, 16],
        "out_channels": [16, 12], "kernel_sizes": [3, 3], "strides": [1, 2], "num_block_repeats": [1, 1],
        "expand_ratios": [1, 2], "depthwise_padding": [], "dropout_rate": 0.0, "hidden_act": "swish",
    }  # fmt: skip
    torch.manual_seed(0)
    config = AlignConfig(text_config={**text, "intermediate_size": 16}, vision_config=vision, projection_dim=8)
    model = AlignModel(config)
    for name, value in model.named_parameters():
        if value.ndim > 1:
            torch.nn.init.normal_(value, std=value[0].numel() ** -0.5)
        elif name.endswith("bias"):
            torch.nn.init.normal_(value, std=0.5)
    model.save_pretrained(path)
    AlignProcessor(
        EfficientNetImageProcessor(
            size={"height": 32, "width": 32}, crop_size={"height": 28, "width": 28}, do_center_crop=True,
            rescale_factor=1 / 127.5, rescale_offset=True, do_normalize=False, include_top=False, resample=2,
        ),
        BertTokenizer(str(path / "vocab.txt")),
    ).save_pretrained(path)  # fmt: skip
    return str(path)


@pytest.fixture
def photos() -> Tensor:
    coarse = torch.rand(3, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(coarse, (40, 48), mode="bilinear")


def test_the_contract_holds_with_a_gradient(folder: str, photos: Tensor) -> None:
    reward = AlignHarmonicReward(folder)
    records = [{"reference_images": [photos[0], photos[1]]}] * 2 + [{"reference_images": photos[:1, :, :30]}]
    scores = rewards.check_contract(reward, photos, PROMPTS, records)
    assert reward.name == "align_harmonic_tiny-align" and scores.unique().numel() == 3
    reward.self_test()


def test_both_similarities_and_their_harmonic_mean_are_rpos(folder: str, photos: Tensor) -> None:
    """By transformers alone on PIL images: features, cosines, the formula of the paper."""
    from transformers import AutoModel, AutoProcessor

    model, processor = AutoModel.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    pil = [Image.fromarray((photo * 255).round().byte().permute(1, 2, 0).numpy()) for photo in photos]
    with torch.no_grad():
        seen = model.get_image_features(**processor(images=pil, return_tensors="pt")).pooler_output
        read = model.get_text_features(**processor(text=PROMPTS, return_tensors="pt", padding=True)).pooler_output
    cosine = torch.nn.functional.cosine_similarity
    b = (cosine(seen, read) + 1) / 2
    a = ((cosine(seen, seen[:1]) + cosine(seen, seen[1:2])) / 2 + 1) / 2
    records: list[dict[str, Any]] = [{"reference_images": [photos[0], photos[1]]}] * 3
    for share in (0.0, 0.3, 1.0):
        scores = AlignHarmonicReward(folder, image_weight=share)(photos, PROMPTS, records)
        assert torch.allclose(scores, 1 / (share / a + (1 - share) / b), atol=2e-3)


def test_golden_numbers_of_rpo() -> None:
    from diffalign.losses.reward_combination import harmonic

    pair = torch.tensor([[0.8], [0.6]], dtype=torch.float64)
    found = [float(harmonic(pair, (share, 1 - share))) for share in (1.0, 0.0, 0.3)]
    assert found == pytest.approx([0.8, 0.6, 0.648649], abs=1e-6)


def test_the_gradient_is_that_of_finite_differences(folder: str, photos: Tensor) -> None:
    reward = AlignHarmonicReward(folder).to(dtype=torch.float64)
    images = photos[:1].double().requires_grad_()
    records = [{"reference_images": [photos[1]]}]
    direction = torch.randn(images.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    (gradient,) = torch.autograd.grad(reward(images, PROMPTS[:1], records).sum(), images)
    with torch.no_grad():
        ahead, behind = (reward(images + s * 1e-6 * direction, PROMPTS[:1], records) for s in (1, -1))
    assert float((gradient * direction).sum()) == pytest.approx(float((ahead - behind).sum() / 2e-6), rel=1e-5)


def test_without_references_a_sample_is_nan_unless_only_the_prompt_counts(folder: str, photos: Tensor) -> None:
    records: list[dict[str, Any]] = [{}, {"reference_images": []}, {"reference_images": [photos[0]]}]
    assert AlignHarmonicReward(folder)(photos, PROMPTS, records).isnan().tolist() == [True, True, False]
    assert AlignHarmonicReward(folder, image_weight=0.0)(photos, PROMPTS, records).isfinite().all()


def test_a_folder_of_references_serves_all(folder: str, photos: Tensor, tmp_path: Path) -> None:
    for number in range(2):
        pixels = (photos[number] * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    fixed = AlignHarmonicReward(folder, references=str(tmp_path))(photos, PROMPTS, [{}] * 3)
    given = AlignHarmonicReward(folder)(photos, PROMPTS, [{"reference_images": photos[:2]}] * 3)
    assert torch.allclose(fixed, given, atol=2e-3)


def test_long_prompts_are_cut_off_with_one_warning(
    folder: str, photos: Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    reward = AlignHarmonicReward(folder, image_weight=0.0)
    with caplog.at_level(logging.WARNING):
        scores = [float(reward(photos[:1], ["cat " * n], [{}])) for n in (100, 200)]
    assert scores[0] == scores[1] and caplog.text.count("reads 64 tokens") == 1


def test_bad_arguments_and_missing_files(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="0 to 1, got 1.5"):
        AlignHarmonicReward(folder, image_weight=1.5)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MissingWeights, match="kakaobrain/align-base.*model="):
        AlignHarmonicReward()
