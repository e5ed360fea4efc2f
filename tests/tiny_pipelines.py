"""Random pipelines of the true classes, a few thousand parameters each, built on the spot."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

WORDS = "a photo of red green blue circle square triangle cross and left above three two".split()


def word_tokenizer(length: int = 12) -> PreTrainedTokenizerFast:
    vocabulary = {word: i for i, word in enumerate(["<pad>", "<bos>", "<eos>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)]
    )
    names = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=length, **names)


def clip_config(**extra: Any) -> CLIPTextConfig:
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    # eos_token_id 3 and not 2: 2 makes CLIP pool at the largest token id.
    return CLIPTextConfig(
        **sizes, vocab_size=32, max_position_embeddings=12, projection_dim=16, eos_token_id=3, pad_token_id=0, **extra
    )


def tiny_vae(latent_channels: int = 4) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=latent_channels,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=32,
        shift_factor=0.1,
        scaling_factor=1.5,
    )


def tiny_sd3(seed: int = 0, **scheduler: Any) -> StableDiffusion3Pipeline:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        transformer = SD3Transformer2DModel(
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
            pos_embed_max_size=8,
        )
        for parameter in transformer.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)  # the zero-initialised gates would hide the prompt
        t5 = T5Config(
            vocab_size=32, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2, pad_token_id=0, eos_token_id=2
        )
        return StableDiffusion3Pipeline(
            transformer=transformer,
            scheduler=FlowMatchEulerDiscreteScheduler(**scheduler),
            vae=tiny_vae(),
            text_encoder=CLIPTextModelWithProjection(clip_config()),
            tokenizer=word_tokenizer(),
            text_encoder_2=CLIPTextModelWithProjection(clip_config()),
            tokenizer_2=word_tokenizer(),
            text_encoder_3=T5EncoderModel(t5),
            tokenizer_3=word_tokenizer(),
        )


def tiny_sd(seed: int = 0, **scheduler: Any) -> StableDiffusionPipeline:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=16,
            attention_head_dim=4,
            norm_num_groups=4,
        )
        config = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
        return StableDiffusionPipeline(
            unet=unet,
            scheduler=DDIMScheduler(**{**config, "clip_sample": False, "set_alpha_to_one": False, **scheduler}),
            vae=tiny_vae(),
            text_encoder=CLIPTextModel(clip_config()),
            tokenizer=word_tokenizer(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
