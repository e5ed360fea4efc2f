"""BLIP's image and text towers of transformers, from a checkpoint under the original BLIP's names.

The original's image tower is a ViT in timm's naming; its text tower is a BERT with cross-attention, whose names
transformers kept. Sizes of the image tower are read off the tensors, those of the text tower from a configuration file.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from diffalign.rewards import weights

if TYPE_CHECKING:
    from transformers import BlipTextConfig, BlipVisionConfig

HEAD_WIDTH = 64
"""Of the image tower's attention: 16 heads of a ViT-L's 1024."""
VISION = "blip.vision_model."
RENAMES = (
    (r"^blip\.visual_encoder\.", VISION),
    (rf"^{VISION}cls_token$", f"{VISION}embeddings.class_embedding"),
    (rf"^{VISION}pos_embed$", f"{VISION}embeddings.position_embedding"),
    (rf"^{VISION}patch_embed\.proj\.", f"{VISION}embeddings.patch_embedding."),
    (rf"^{VISION}norm\.", f"{VISION}post_layernorm."),
    (rf"^{VISION}blocks\.(\d+)\.norm([12])\.", rf"{VISION}encoder.layers.\1.layer_norm\2."),
    (rf"^{VISION}blocks\.(\d+)\.attn\.qkv\.", rf"{VISION}encoder.layers.\1.self_attn.qkv."),
    (rf"^{VISION}blocks\.(\d+)\.attn\.proj\.", rf"{VISION}encoder.layers.\1.self_attn.projection."),
    (rf"^{VISION}blocks\.(\d+)\.mlp\.", rf"{VISION}encoder.layers.\1.mlp."),
)
"""Original name -> name in transformers, in this order."""
SIZED = ("embeddings.patch_embedding.weight", "embeddings.position_embedding", "encoder.layers.0.mlp.fc1.weight")
"""The tensors of the image tower that tell its sizes."""
TEXT_SIZES = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "max_position_embeddings",
)  # fmt: skip
TEXT_DEFAULTS = {"hidden_act": "gelu", "layer_norm_eps": 1e-12}


def rename(state: Mapping[str, Tensor], source: object) -> dict[str, Tensor]:
    """Tensors under the names of `BlipTowers` and its head.

    Raises:
        ValueError: If the tensors that tell the sizes of the image tower are absent.
    """
    out = {}
    for name, value in state.items():
        for pattern, replacement in RENAMES:
            name = re.sub(pattern, replacement, name)
        out[name] = value
    weights.compare_keys({f"{VISION}{name}" for name in SIZED} - set(out), (), {}, source)
    return out


def vision_config(state: Mapping[str, Tensor]) -> BlipVisionConfig:
    """Configuration of the image tower, from its renamed tensors."""
    from transformers import BlipVisionConfig

    patches, positions, inner = (state[f"{VISION}{name}"] for name in SIZED)
    layers = {match[1] for name in state if (match := re.match(rf"{VISION}encoder\.layers\.(\d+)\.", name))}
    return BlipVisionConfig(
        hidden_size=patches.shape[0],
        intermediate_size=inner.shape[0],
        num_hidden_layers=len(layers),
        num_attention_heads=max(1, patches.shape[0] // HEAD_WIDTH),
        image_size=patches.shape[-1] * math.isqrt(positions.shape[1] - 1),
        patch_size=patches.shape[-1],
        hidden_act="gelu",
        layer_norm_eps=1e-6,
        attention_dropout=0.0,
    )


def text_config(file: Path, vision: BlipVisionConfig) -> BlipTextConfig:
    """Configuration of the text tower, from `med_config.json`.

    Raises:
        ValueError: If the file is no such configuration.
    """
    from transformers import BlipTextConfig

    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is no JSON: {error}") from error
    missing = [key for key in TEXT_SIZES if not isinstance(content, dict) or key not in content]
    if missing:
        raise ValueError(f"{file} is not the configuration of BLIP's text tower: it lacks {', '.join(missing)}")
    return BlipTextConfig(
        **{key: content[key] for key in TEXT_SIZES},
        **{key: content.get(key, value) for key, value in TEXT_DEFAULTS.items()},
        encoder_hidden_size=vision.hidden_size,
        is_decoder=True,  # which is how transformers says that there is cross-attention
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


class BlipTowers(nn.Module):
    """Image and prompt to one embedding: the text tower reads the prompt and attends to the image."""

    def __init__(self, vision: BlipVisionConfig, text: BlipTextConfig) -> None:
        """Builds both towers, with random weights."""
        from transformers.models.blip.modeling_blip import BlipVisionModel
        from transformers.models.blip.modeling_blip_text import BlipTextModel

        super().__init__()
        self.vision_model = BlipVisionModel(vision)
        self.text_encoder = BlipTextModel(text, add_pooling_layer=False)
        self.image_size = int(vision.image_size)

    def forward(self, pixels: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """The state of the first token, `(B, D)`, of normalised pixels `(B, 3, H, W)`, token ids and mask `(B, L)`."""
        image = self.vision_model(pixel_values=pixels.to(self.vision_model.dtype)).last_hidden_state
        out = self.text_encoder(
            input_ids=ids, attention_mask=mask, encoder_hidden_states=image, encoder_attention_mask=None
        )
        state: Tensor = out.last_hidden_state[:, 0]
        return state
