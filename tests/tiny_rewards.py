"""Small random models of the true architectures of image rewards, saved as the true ones are published."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import (
    BertConfig,
    CLIPConfig,
    CLIPModel,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
)

WORDS = "a an the photo of red green blue cat dog cube left right and two three".split()
PROMPTS = ["a red cat", "a blue dog", "two green cube and a cat"]
ARCHITECTURE = "tiny-ViT-H"
CLIP_TRANSFORM = {
    "do_resize": True, "size": {"shortest_edge": 28}, "do_center_crop": True, "crop_size": {"height": 28, "width": 28},
    "resample": 3, "do_normalize": True, "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711], "image_processor_type": "CLIPImageProcessor",
}  # fmt: skip
SQUASH_TRANSFORM = {
    "do_resize": True, "size": {"height": 28, "width": 28}, "resample": 3, "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "image_processor_type": "SiglipImageProcessor",
}  # fmt: skip


def pictures(count: int = 3, size: int = 40, seed: int = 0) -> Tensor:
    """Smooth random images `(B, 3, size, size)`, values in (0.25, 0.75), so that no overshoot meets a clamp."""
    noise = torch.rand(count, 3, 7, 7, generator=torch.Generator().manual_seed(seed))
    return 0.3 + 0.4 * torch.nn.functional.interpolate(noise, (size, size), mode="bilinear")


def words(context: int, begin: str = "<bos>", end: str = "<eos>") -> PreTrainedTokenizerFast:
    """A word-level tokenizer; `begin` and `end` stand around every text."""
    vocabulary = {word: i for i, word in enumerate(["<pad>", "<unk>", begin, end, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}", special_tokens=[(begin, 2), (end, 3)]
    )
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": begin, "eos_token": end}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=context, **names)


def spread(module: torch.nn.Module, seed: int = 0) -> None:
    """Random weights large enough that every part of a model moves its output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in module.parameters():
            if value.ndim > 1:
                value.copy_(torch.randn(value.shape, generator=generator) * 1.2 / value[0].numel() ** 0.5)
            elif value.ndim == 1:
                value.add_(0.1 * torch.randn(value.shape, generator=generator))


def save_clip(folder: Path, *, projection: int = 24) -> CLIPModel:
    """A CLIP in the format of transformers: model, tokenizer, transform."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**sizes, "vocab_size": 32, "max_position_embeddings": 12, "eos_token_id": 3, "pad_token_id": 0}
    vision = {**sizes, "image_size": 28, "patch_size": 14}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=projection)).eval()
    spread(model)
    model.logit_scale.data.fill_(4.605170185988092)
    model.save_pretrained(folder)
    words(12).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(CLIP_TRANSFORM))
    return model


def save_siglip(folder: Path) -> SiglipModel:
    """A SigLIP in the format of transformers."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**sizes, "vocab_size": 32, "max_position_embeddings": 12, "projection_size": 32}
    model = SiglipModel(SiglipConfig(text_config=text, vision_config={**sizes, "image_size": 28, "patch_size": 14}))
    spread(model.eval())
    model.save_pretrained(folder)
    words(12).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(SQUASH_TRANSFORM))
    return model


def open_clip_config(tokenizer: str | None = None) -> dict[str, object]:
    """Sizes of a small open_clip model with the head width of ViT-H-14."""
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    if tokenizer:
        text = {**text, "context_length": 12, "vocab_size": 32, "hf_tokenizer_name": tokenizer}
        text |= {"pool_type": "eos", "eos_id": 3}
    vision = {"image_size": 28, "layers": 2, "width": 160, "head_width": 80, "patch_size": 14}
    return {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}


def register_architecture(folder: Path) -> str:
    """Makes `ARCHITECTURE` a name of open_clip, and returns it."""
    import open_clip

    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{ARCHITECTURE}.json").write_text(json.dumps(open_clip_config()))
    open_clip.add_model_config(folder / f"{ARCHITECTURE}.json")
    return ARCHITECTURE


def save_open_clip(folder: Path) -> torch.nn.Module:
    """An open_clip model as a local folder with a tokenizer of its own."""
    import open_clip
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    transform = {"mean": CLIP_TRANSFORM["image_mean"], "std": CLIP_TRANSFORM["image_std"], "interpolation": "bicubic"}
    config = {"model_cfg": open_clip_config("words"), "preprocess_cfg": {**transform, "resize_mode": "shortest"}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    words(12).save_pretrained(folder)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False).eval()
    spread(model)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return model


def med_config() -> BertConfig:
    """Sizes of a small text tower of BLIP."""
    return BertConfig(
        vocab_size=32, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=3,
        max_position_embeddings=40, layer_norm_eps=1e-12, hidden_act="gelu",
    )  # fmt: skip
