"""Tiny random pipelines of the true classes, one builder per family: 10 to 360 thousand parameters each.

Every builder takes keyword arguments of its scheduler or of what the family varies in. All weights of a denoiser are
shaken, since zero-initialised gates would hide the prompt.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import diffusers as d
import torch
import transformers as tf
from tokenizers import Tokenizer, models, pre_tokenizers, processors

WORDS = """a photo of red green blue circle square triangle cross and left above three two you are an assistant
designed to generate superior images with the degree image - text alignment based on textual prompts or user describe
by detailing color shape size texture quantity spatial relationships objects background system im_start im_end < > | : .
, <| |>"""
SPECIAL = ["<pad>", "<bos>", "<eos>", "<unk>", "<|im_start|>", "<|im_end|>", "<|image_pad|>", "<|vision_start|>"]
VOCABULARY = 96

SD_TABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def tokenizer(length: int = 12) -> tf.PreTrainedTokenizerFast:
    vocabulary: dict[str, int] = {}
    for word in [*SPECIAL, *WORDS.split()]:
        vocabulary.setdefault(word, len(vocabulary))
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.add_special_tokens(SPECIAL)
    ends = [("<bos>", 1), ("<eos>", 2)]
    made.post_processor = processors.TemplateProcessing(single="<bos> $A <eos>", special_tokens=ends)
    names = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
    return tf.PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=length, **names)


def clip(kind: Any = tf.CLIPTextModel, length: int = 12) -> Any:
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"eos_token_id": 3, "pad_token_id": 0}  # eos 2 would make CLIP pool at the largest token id
    return kind(
        tf.CLIPTextConfig(**sizes, **ids, vocab_size=VOCABULARY, max_position_embeddings=length, projection_dim=16)
    )


def t5(kind: Any = tf.T5EncoderModel, config: Any = tf.T5Config) -> Any:
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    return kind(config(vocab_size=VOCABULARY, **sizes, pad_token_id=0, eos_token_id=2))


def vae(blocks: int = 3, **config: Any) -> d.AutoencoderKL:
    return d.AutoencoderKL(
        **{
            "block_out_channels": (8,) * blocks,
            "down_block_types": ("DownEncoderBlock2D",) * blocks,
            "up_block_types": ("UpDecoderBlock2D",) * blocks,
            "latent_channels": 4,
            "layers_per_block": 1,
            "norm_num_groups": 4,
            "sample_size": 32,
            "scaling_factor": 1.5,
            "shift_factor": 0.1,
            **config,
        }
    )


def shaken(module: Any) -> Any:
    for parameter in module.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return module.eval()


def seeded(build: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(build)
    def made(**options: Any) -> Any:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return build(**options)

    return made


def unet(**config: Any) -> Any:
    return shaken(
        d.UNet2DConditionModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            block_out_channels=(8, 16),
            layers_per_block=1,
            norm_num_groups=4,
            **config,
        )
    )


def _sd_unet(**config: Any) -> Any:
    down, up = ("CrossAttnDownBlock2D", "DownBlock2D"), ("UpBlock2D", "CrossAttnUpBlock2D")
    sizes = {"cross_attention_dim": 16, "attention_head_dim": 4}
    return unet(down_block_types=down, up_block_types=up, **sizes, **config)


def _sd(kind: Any, net: Any, scheduler: Any) -> Any:
    parts = {"vae": vae(), "text_encoder": clip(), "tokenizer": tokenizer(), "unet": net, "scheduler": scheduler}
    return kind(**parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False)


@seeded
def sd(**scheduler: Any) -> d.StableDiffusionPipeline:
    config = {**SD_TABLE, "clip_sample": False, "set_alpha_to_one": False, **scheduler}
    return _sd(d.StableDiffusionPipeline, _sd_unet(), d.DDIMScheduler(**config))


@seeded
def lcm() -> d.LatentConsistencyModelPipeline:
    return _sd(d.LatentConsistencyModelPipeline, _sd_unet(time_cond_proj_dim=32), d.LCMScheduler())


@seeded
def sdxl(scheduler: Any = None, time_cond: int | None = None, vae_config: Any = None, **options: Any) -> Any:
    net = unet(
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 1),
        projection_class_embeddings_input_dim=6 * 8 + 16,
        cross_attention_dim=32,
        time_cond_proj_dim=time_cond,
    )
    return d.StableDiffusionXLPipeline(
        vae=vae(**(vae_config or {})),
        text_encoder=clip(),
        text_encoder_2=clip(tf.CLIPTextModelWithProjection),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        unet=net,
        scheduler=scheduler or d.EulerDiscreteScheduler(**SD_TABLE, timestep_spacing="leading"),
        add_watermarker=False,
        **options,
    )


@seeded
def sd3(**scheduler: Any) -> d.StableDiffusion3Pipeline:
    transformer = d.SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=32,
        caption_projection_dim=16,
        pooled_projection_dim=32,
        pos_embed_max_size=16,
    )
    return d.StableDiffusion3Pipeline(
        transformer=shaken(transformer),
        scheduler=d.FlowMatchEulerDiscreteScheduler(**{"shift": 3.0, **scheduler}),
        vae=vae(),
        text_encoder=clip(tf.CLIPTextModelWithProjection),
        tokenizer=tokenizer(),
        text_encoder_2=clip(tf.CLIPTextModelWithProjection),
        tokenizer_2=tokenizer(),
        text_encoder_3=t5(),
        tokenizer_3=tokenizer(24),
    )


@seeded
def flux(guidance: bool = True, **scheduler: Any) -> d.FluxPipeline:
    transformer = d.FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=16,
        guidance_embeds=guidance,
        axes_dims_rope=(4, 4, 8),
    )
    return d.FluxPipeline(
        transformer=shaken(transformer),
        scheduler=d.FlowMatchEulerDiscreteScheduler(**{"shift": 3.0, "use_dynamic_shifting": True, **scheduler}),
        vae=vae(),
        text_encoder=clip(),
        tokenizer=tokenizer(),
        text_encoder_2=t5(),
        tokenizer_2=tokenizer(512),
    )
