"""Small random models of the true architectures of the suites' judges, saved as the true ones are published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from tests.tiny_rewards import spread

SWIN = {"image_size": 64, "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 4}
BERT_SPECIALS = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 1012: ".", 1029: "?"}
"""Ids of bert-base-uncased that the code of Grounding DINO has by number."""
WORDS = "a photo of cat dog traffic light red green blue cube is the there yes no".split()


def bert_tokenizer(folder: Path, extra: list[str]) -> Any:
    """A BERT tokenizer with the special ids of the published one, `WORDS`, and further special tokens at the end."""
    from transformers import BertTokenizerFast

    names = [BERT_SPECIALS.get(i, f"[unused{i}]") for i in range(1030)] + WORDS
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(names))
    tokenizer = BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=64)
    if extra:
        tokenizer.add_special_tokens({"bos_token": extra[0], "additional_special_tokens": extra[1:]})
    return tokenizer


def save(model: nn.Module, folder: Path, *parts: Any) -> Path:
    """Writes a model with spread weights, and what goes beside it."""
    spread(model)
    model.eval().save_pretrained(folder)  # type: ignore[operator]
    for part in parts:
        part.save_pretrained(folder)
    return folder


def save_mask2former(folder: Path, labels: int = 80) -> Path:
    from transformers import (
        Mask2FormerConfig,
        Mask2FormerForUniversalSegmentation,
        Mask2FormerImageProcessor,
        SwinConfig,
    )

    config = Mask2FormerConfig(
        backbone_config=SwinConfig(**SWIN, out_features=["stage1", "stage2", "stage3", "stage4"]),
        feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=16, dim_feedforward=16,
        encoder_layers=1, decoder_layers=2, num_attention_heads=2, num_queries=8, num_labels=labels,
        id2label={i: f"thing {i}" for i in range(labels)},
    )  # fmt: skip
    return save(Mask2FormerForUniversalSegmentation(config), folder, Mask2FormerImageProcessor())


def save_owlv2(folder: Path) -> Path:
    from transformers import Owlv2Config, Owlv2ForObjectDetection, Owlv2ImageProcessor, Owlv2Processor

    from tests.tiny_rewards import words

    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**sizes, "vocab_size": 40, "max_position_embeddings": 16, "eos_token_id": 3, "pad_token_id": 0}
    vision = {**sizes, "image_size": 64, "patch_size": 16}
    model = Owlv2ForObjectDetection(Owlv2Config(text_config=text, vision_config=vision, projection_dim=16))
    processor = Owlv2Processor(Owlv2ImageProcessor(size={"height": 64, "width": 64}), words(16))
    return save(model, folder, processor)


def save_grounding_dino(folder: Path) -> Path:
    from transformers import (
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
        SwinConfig,
    )

    tokenizer = bert_tokenizer(folder, [])
    config = GroundingDinoConfig(
        backbone_config=SwinConfig(**SWIN, out_features=["stage2", "stage3", "stage4"]),
        text_config={
            "model_type": "bert", "vocab_size": len(tokenizer), "hidden_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 64,
        },
        d_model=32, encoder_layers=1, decoder_layers=2, encoder_ffn_dim=16, decoder_ffn_dim=16, num_queries=12,
        encoder_attention_heads=2, decoder_attention_heads=2, max_text_len=32,
    )  # fmt: skip
    images = GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    return save(GroundingDinoForObjectDetection(config), folder, GroundingDinoProcessor(images, tokenizer))


def save_blip_vqa(folder: Path) -> Path:
    from transformers import BlipConfig, BlipForQuestionAnswering, BlipImageProcessor, BlipProcessor

    tokenizer = bert_tokenizer(folder, ["[DEC]", "[ENC]"])
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {
        **sizes, "vocab_size": len(tokenizer), "encoder_hidden_size": 16, "max_position_embeddings": 64,
        "bos_token_id": tokenizer.convert_tokens_to_ids("[DEC]"), "pad_token_id": 0, "sep_token_id": 102,
        "is_decoder": True,
    }  # fmt: skip
    vision = {**sizes, "image_size": 32, "patch_size": 16}
    model = BlipForQuestionAnswering(BlipConfig(text_config=text, vision_config=vision))
    images = BlipImageProcessor(size={"height": 32, "width": 32})
    return save(model, folder, BlipProcessor(images, tokenizer))


def save_dpt(folder: Path) -> Path:
    from transformers import BitConfig, DPTConfig, DPTForDepthEstimation, DPTImageProcessor

    config = DPTConfig(
        is_hybrid=True,
        backbone_config=BitConfig(
            layer_type="bottleneck", depths=[1, 1, 1], hidden_sizes=[32, 32, 64], embedding_size=16, num_groups=2,
            out_features=["stage1", "stage2", "stage3"], embedding_dynamic_padding=True, global_padding="same",
        ),
        backbone_featmap_shape=[1, 64, 4, 4], hidden_size=16, num_hidden_layers=4, num_attention_heads=2,
        intermediate_size=16, image_size=64, patch_size=16, neck_hidden_sizes=[32, 32, 16, 16],
        fusion_hidden_size=16, backbone_out_indices=[0, 1, 2, 3], neck_ignore_stages=[0, 1],
        reassemble_factors=[1, 1, 1, 0.5], readout_type="project",
    )  # fmt: skip
    return save(DPTForDepthEstimation(config), folder, DPTImageProcessor(size={"height": 64, "width": 64}))


BUILDERS = {
    "mask2former": save_mask2former,
    "owlv2": save_owlv2,
    "grounding_dino": save_grounding_dino,
    "blip_vqa": save_blip_vqa,
    "dpt": save_dpt,
}
