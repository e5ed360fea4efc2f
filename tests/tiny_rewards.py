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


def blip_state(seed: int = 0, *, width: int = 128, layers: int = 2) -> dict[str, Tensor]:
    """Tensors of a small ImageReward under the names of its published checkpoint: timm's ViT, BERT, head."""
    config, shapes = med_config(), {}
    shapes |= {"visual_encoder.cls_token": (1, 1, width), "visual_encoder.pos_embed": (1, 5, width)}
    shapes |= _affine("visual_encoder.patch_embed.proj", (width, 3, 16, 16))
    for i in range(layers):
        block = f"visual_encoder.blocks.{i}"
        for name, shape in [
            ("norm1", (width,)), ("norm2", (width,)), ("attn.qkv", (3 * width, width)), ("attn.proj", (width, width)),
            ("mlp.fc1", (2 * width, width)), ("mlp.fc2", (width, 2 * width)),
        ]:  # fmt: skip
            shapes |= _affine(f"{block}.{name}", shape)
    size, inner = config.hidden_size, config.intermediate_size
    shapes |= _affine("visual_encoder.norm", (width,)) | _affine("text_encoder.embeddings.LayerNorm", (size,))
    shapes["text_encoder.embeddings.word_embeddings.weight"] = (config.vocab_size, size)
    shapes["text_encoder.embeddings.position_embeddings.weight"] = (config.max_position_embeddings, size)
    for i in range(config.num_hidden_layers):
        layer = f"text_encoder.encoder.layer.{i}"
        for kind, source in [("attention", size), ("crossattention", width)]:
            shapes |= _affine(f"{layer}.{kind}.self.query", (size, size))
            shapes |= _affine(f"{layer}.{kind}.self.key", (size, source))
            shapes |= _affine(f"{layer}.{kind}.self.value", (size, source))
            shapes |= _affine(f"{layer}.{kind}.output.dense", (size, size))
            shapes |= _affine(f"{layer}.{kind}.output.LayerNorm", (size,))
        shapes |= _affine(f"{layer}.intermediate.dense", (inner, size))
        shapes |= _affine(f"{layer}.output.dense", (size, inner)) | _affine(f"{layer}.output.LayerNorm", (size,))
    shapes |= _affine("vision_proj", (8, width)) | _affine("text_proj", (8, size))
    shapes = {f"blip.{name}": shape for name, shape in shapes.items()}
    sides = (size, 1024, 128, 64, 16, 1)
    for index, (a, b) in zip((0, 2, 4, 6, 7), zip(sides, sides[1:], strict=False), strict=True):
        shapes |= _affine(f"mlp.layers.{index}", (b, a))
    generator = torch.Generator().manual_seed(seed)
    state = {name: _draw(shape, generator) for name, shape in shapes.items()}
    state["blip.text_encoder.embeddings.position_ids"] = torch.arange(config.max_position_embeddings)[None]
    return state


def _affine(name: str, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Weight and bias of a layer."""
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _draw(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Random values that keep signals at their size; vectors near 0.5, so that norms differ from the identity."""
    draw = torch.randn(shape, generator=generator)
    return draw * 1.2 / draw[0].numel() ** 0.5 if draw.ndim > 1 else 0.5 + 0.3 * draw


def save_imagereward(folder: Path) -> dict[str, Tensor]:
    """`ImageReward.pt`, `med_config.json` and a tokenizer in `tokenizer/`."""
    folder.mkdir(parents=True, exist_ok=True)
    state = blip_state()
    torch.save(state, folder / "ImageReward.pt")
    keys = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "max_position_embeddings", "layer_norm_eps", "hidden_act", "hidden_dropout_prob",
    )  # fmt: skip
    content = {key: getattr(med_config(), key) for key in keys} | {"encoder_width": 768, "add_cross_attention": True}
    (folder / "med_config.json").write_text(json.dumps(content))
    words(512, "[CLS]", "[SEP]").save_pretrained(folder / "tokenizer")
    return state


def save_heads(folder: Path, width: int = 24) -> dict[str, dict[str, Tensor]]:
    """The files of both aesthetic predictors, on embeddings of this width."""
    generator = torch.Generator().manual_seed(3)
    sides = (width, 1024, 128, 64, 16, 1)
    layers: dict[str, tuple[int, ...]] = {}
    for index, (a, b) in zip((0, 2, 4, 6, 7), zip(sides, sides[1:], strict=False), strict=True):
        layers |= _affine(f"layers.{index}", (b, a))
    states = {
        "sac+logos+ava1-l14-linearMSE.pth": {name: _draw(shape, generator) for name, shape in layers.items()},
        "sa_0_4_vit_l_14_linear.pth": {"weight": _draw((1, width), generator), "bias": _draw((1,), generator)},
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, state in states.items():
        torch.save(state, folder / name)
    return states


def save_hps(folder: Path, architecture: str) -> dict[str, Tensor]:
    """The files of HPSv2 and HPSv2.1: one state under `state_dict`, beside what a training run leaves there."""
    import open_clip

    folder.mkdir(parents=True, exist_ok=True)
    model = open_clip.create_model(architecture, load_weights=False).eval()
    for seed, name in enumerate(["HPS_v2_compressed.pt", "HPS_v2.1_compressed.pt"]):
        spread(model, seed)
        torch.save({"epoch": 7, "name": "run", "state_dict": model.state_dict()}, folder / name)
    return dict(model.state_dict())


def publish(folder: Path) -> dict[str, dict[str, object]]:
    """Everything of this module below one folder: name of the reward -> arguments that find it there."""
    save_clip(folder / "clip")
    save_heads(folder / "heads")
    save_imagereward(folder / "imagereward")
    architecture = register_architecture(folder / "architectures")
    save_hps(folder / "hps", architecture)
    hps: dict[str, object] = {"path": folder / "hps", "architecture": architecture}
    aesthetic: dict[str, object] = {"head": folder / "heads", "clip": folder / "clip"}
    return {
        "aesthetic": aesthetic,
        "aesthetic_v1": aesthetic,
        "clip": {"model": folder / "clip"},
        "pickscore": {"path": folder / "clip"},
        "hpsv2": hps,
        "hpsv2.1": hps,
        "imagereward": {"path": folder / "imagereward", "tokenizer": folder / "imagereward" / "tokenizer"},
    }
