from __future__ import annotations

import pytest
import torch
from PIL import Image
from torch import Tensor

import diffalign.rewards as rewards
from diffalign.rewards.ocr import OcrReward
from diffalign.rewards.weights import MissingWeights


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny TrOCR (ViT and its decoder) in the published format."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import (
        PreTrainedTokenizerFast,
        TrOCRConfig,
        TrOCRForCausalLM,
        TrOCRProcessor,
        VisionEncoderDecoderModel,
        ViTConfig,
        ViTImageProcessor,
        ViTModel,
    )

    folder = tmp_path_factory.mktemp("models") / "tiny-trocr"
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    letters = [chr(code) for code in range(97, 123)]
    raw.train_from_iterator(
        letters, trainers.BpeTrainer(special_tokens=["<s>", "<pad>", "</s>"], initial_alphabet=letters)
    )
    words = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", pad_token="<pad>", eos_token="</s>")
    torch.manual_seed(3)
    vision = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8
    )
    language = TrOCRConfig(
        vocab_size=len(words), d_model=16, decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=16,
        cross_attention_hidden_size=16, max_position_embeddings=64,
    )  # fmt: skip
    model = VisionEncoderDecoderModel(encoder=ViTModel(vision), decoder=TrOCRForCausalLM(language))
    for value in model.parameters():
        if value.ndim > 1:
            torch.nn.init.normal_(value, std=1.5 * value[0].numel() ** -0.5)
    for settings in (model.config, model.generation_config):
        settings.decoder_start_token_id, settings.pad_token_id, settings.eos_token_id = 0, 1, 2
    model.save_pretrained(folder)
    TrOCRProcessor(ViTImageProcessor(size={"height": 32, "width": 32}), words).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def photos() -> Tensor:
    return torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1)).mul(255).round() / 255


def test_readings_are_those_of_transformers_on_pil_images(reader: str, photos: Tensor) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model, processor = AutoModelForImageTextToText.from_pretrained(reader), AutoProcessor.from_pretrained(reader)
    pil = [Image.fromarray((photo * 255).byte().permute(1, 2, 0).numpy()) for photo in photos]
    made = model.generate(processor(images=pil, return_tensors="pt").pixel_values, max_new_tokens=12, do_sample=False)
    expected = processor.batch_decode(made, skip_special_tokens=True)
    found = OcrReward(reader, max_new_tokens=12).read(photos)
    assert found == expected
    assert all(text.strip() for text in found)


def test_the_score_follows_the_reading(reader: str, photos: Tensor) -> None:
    reward = OcrReward(reader, max_new_tokens=8)
    texts = reward.read(photos)
    right = reward(photos, [f'a sign "{text}"' for text in texts], [{}] * 4)
    assert right.tolist() == [1.0] * 4
    one_off = reward(photos[:1], ["a sign"], [{"text": texts[0] + "0"}])
    assert float(one_off) == pytest.approx(1 - 1 / (len("".join(texts[0].split())) + 1))
    part = texts[0][: len(texts[0]) // 2]
    assert float(reward(photos[:1], [f'"{part}"'], [{}])) == 1.0
    assert float(OcrReward(reader, contained=False, max_new_tokens=8)(photos[:1], [f'"{part}"'], [{}])) < 1.0


def test_the_contract_holds(reader: str, photos: Tensor) -> None:
    reward = OcrReward(reader, max_new_tokens=8, batch_size=3)
    rewards.check_contract(reward, photos, ['a sign "abc"', '"d e f"', '"g"', '"hijk"'], [{}] * 4)
    assert reward.name == "ocr_tiny-trocr" and not reward.differentiable
    assert OcrReward(reader, contained=False).name == "ocr_tiny-trocr_whole"


def test_a_prompt_without_text_is_a_mistake_in_the_wiring(reader: str, photos: Tensor) -> None:
    with pytest.raises(ValueError, match="quotation marks.*'a dog' has neither"):
        OcrReward(reader)(photos[:1], ["a dog"], [{}])


def test_bad_arguments_and_missing_files(reader: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for options in ({"batch_size": 0}, {"max_new_tokens": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            OcrReward(reader, **options)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MissingWeights, match="stepfun-ai/GOT-OCR-2.0-hf.*model="):
        OcrReward()
