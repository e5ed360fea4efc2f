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
SPECIAL = """<pad> <bos> <eos> <unk> <|im_start|> <|im_end|> <|image_pad|> <|vision_start|> <|vision_end|>
<|video_pad|>""".split()
CHAT = """{% for m in messages %}<|im_start|>{{ m['role'] + ' ' }}{% if m['content'] is string %}{{ m['content'] }}
{%- else %}{% for c in m['content'] %}{{ c['text'] }}{% endfor %}{% endif %}<|im_end|>{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant{% endif %}"""
"""A chat template that any of the text models would take."""
VOCABULARY = 96

SD_TABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def tokenizer(length: int = 12, *, chat: bool = False, ends: bool = True, side: str = "right") -> Any:
    vocabulary: dict[str, int] = {}
    for word in [*SPECIAL, *WORDS.split()]:
        vocabulary.setdefault(word, len(vocabulary))
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.add_special_tokens(SPECIAL)
    if ends:
        special = [("<bos>", 1), ("<eos>", 2)]
        made.post_processor = processors.TemplateProcessing(single="<bos> $A <eos>", special_tokens=special)
    names = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
    found = tf.PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=length, padding_side=side, **names)
    if chat:
        found.chat_template = CHAT
    return found


def clip(kind: Any = tf.CLIPTextModel, length: int = 12) -> Any:
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"eos_token_id": 3, "pad_token_id": 0}  # eos 2 would make CLIP pool at the largest token id
    return kind(
        tf.CLIPTextConfig(**sizes, **ids, vocab_size=VOCABULARY, max_position_embeddings=length, projection_dim=16)
    )


def t5(kind: Any = tf.T5EncoderModel, config: Any = tf.T5Config) -> Any:
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    return kind(config(vocab_size=VOCABULARY, **sizes, pad_token_id=0, eos_token_id=2))


CHAT_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 2048,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def glm() -> Any:
    return tf.GlmModel(tf.GlmConfig(**CHAT_SIZES, num_hidden_layers=3)).eval()


def llama() -> Any:
    return tf.LlamaForCausalLM(tf.LlamaConfig(**CHAT_SIZES, num_hidden_layers=3)).eval()


def gemma2() -> Any:
    return tf.Gemma2Model(tf.Gemma2Config(**CHAT_SIZES, num_hidden_layers=3)).eval()


def qwen3(kind: Any = tf.Qwen3Model, layers: int = 3) -> Any:
    return kind(tf.Qwen3Config(**CHAT_SIZES, num_hidden_layers=layers)).eval()


def qwen25_vl() -> Any:
    rope = {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"}
    text = {**CHAT_SIZES, "num_key_value_heads": 2, "num_hidden_layers": 2, "rope_scaling": rope}
    text.pop("head_dim")
    sizes = {"depth": 1, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 16}
    windows = {"patch_size": 14, "fullatt_block_indexes": [0], "window_size": 112}
    config = tf.Qwen2_5_VLConfig(text_config=text, vision_config={**sizes, **windows}, image_token_id=6)
    return tf.Qwen2_5_VLForConditionalGeneration(config).eval()


def mistral3() -> Any:
    text = {**CHAT_SIZES, "model_type": "mistral", "num_hidden_layers": 31}
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    vision = {**sizes, "model_type": "pixtral", "image_size": 28, "patch_size": 14}
    return tf.Mistral3ForConditionalGeneration(tf.Mistral3Config(text_config=text, vision_config=vision)).eval()


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


LATENT_STATISTICS = {"latents_mean": [0.1, -0.2, 0.3, 0.0], "latents_std": [1.5, 0.8, 1.2, 2.0]}


def flow(**config: Any) -> d.FlowMatchEulerDiscreteScheduler:
    return d.FlowMatchEulerDiscreteScheduler(**{"shift": 3.0, **config})


@seeded
def chroma(**scheduler: Any) -> d.ChromaPipeline:
    transformer = d.ChromaTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        axes_dims_rope=(4, 4, 8),
        approximator_num_channels=8,
        approximator_hidden_dim=16,
        approximator_layers=1,
    )
    return d.ChromaPipeline(
        transformer=shaken(transformer),
        scheduler=flow(**scheduler),
        vae=vae(),
        text_encoder=t5(),
        tokenizer=tokenizer(512),
    )


@seeded
def z_image(**scheduler: Any) -> d.ZImagePipeline:
    transformer = d.ZImageTransformer2DModel(
        all_patch_size=(2,),
        all_f_patch_size=(1,),
        in_channels=4,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=16,
        axes_dims=[8, 4, 4],
        axes_lens=[1024, 64, 64],
    )
    return d.ZImagePipeline(
        transformer=shaken(transformer),
        scheduler=flow(**scheduler),
        vae=vae(),
        text_encoder=qwen3(),
        tokenizer=tokenizer(512, chat=True),
    )


@seeded
def qwen_image() -> d.QwenImagePipeline:
    transformer = d.QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        axes_dims_rope=(4, 4, 8),
    )
    autoencoder = d.AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        **LATENT_STATISTICS,
    )
    config = {"use_dynamic_shifting": True, "max_shift": 0.9, "max_image_seq_len": 8192, "shift_terminal": 0.02}
    return d.QwenImagePipeline(
        transformer=shaken(transformer),
        scheduler=d.FlowMatchEulerDiscreteScheduler(**config),
        vae=autoencoder,
        text_encoder=qwen25_vl(),
        tokenizer=tokenizer(2048, ends=False),
    )


def start_after_template(pipeline: Any) -> None:
    """A word-level tokenizer spends another number of tokens on the template: cut where the prompt starts."""
    template = getattr(pipeline, "prompt_template_encode", None) or pipeline.prompt_template
    tokens = getattr(pipeline.tokenizer, "tokenizer", pipeline.tokenizer)
    pipeline.prompt_template_encode_start_idx = len(tokens(template.split("{}")[0]).input_ids)


@seeded
def pixart(kind: Any = d.PixArtAlphaPipeline, size: int = 128) -> Any:
    transformer = d.PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        cross_attention_dim=24,
        sample_size=size,
        patch_size=2,
        caption_channels=32,
        use_additional_conditions=False if kind is d.PixArtSigmaPipeline else None,
    )
    return kind(
        transformer=shaken(transformer),
        scheduler=d.DPMSolverMultistepScheduler(),
        vae=vae(),
        text_encoder=t5(),
        tokenizer=tokenizer(300),
    )


def _sana(kind: Any, scheduler: Any, **config: Any) -> Any:
    transformer = d.SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=16,
        sample_size=32,
        patch_size=1,
        **config,
    )
    blocks = ("ResBlock", "EfficientViTBlock")
    autoencoder = d.AutoencoderDC(
        in_channels=3,
        latent_channels=4,
        encoder_block_types=blocks,
        decoder_block_types=blocks,
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        attention_head_dim=2,
        scaling_factor=0.4,
        upsample_block_type="interpolate",
        downsample_block_type="stride_conv",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        encoder_out_shortcut=False,
    )
    return kind(
        transformer=shaken(transformer),
        scheduler=scheduler,
        vae=autoencoder,
        text_encoder=gemma2(),
        tokenizer=tokenizer(1024),
    )


@seeded
def sana(scheduler: Any = None) -> d.SanaPipeline:
    config = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
    return _sana(d.SanaPipeline, scheduler or d.DPMSolverMultistepScheduler(**config))


@seeded
def sana_sprint() -> d.SanaSprintPipeline:
    scheduler = d.SCMScheduler(prediction_type="trigflow", sigma_data=0.5)
    return _sana(d.SanaSprintPipeline, scheduler, guidance_embeds=True, qk_norm="rms_norm_across_heads")


def _flux2(kind: Any, text_encoder: Any, guidance: bool, **options: Any) -> Any:
    transformer = d.Flux2Transformer2DModel(
        patch_size=1,
        in_channels=8,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=48,
        timestep_guidance_channels=16,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=guidance,
    )
    autoencoder = d.AutoencoderKLFlux2(
        sample_size=32,
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        layers_per_block=1,
        latent_channels=2,
        norm_num_groups=4,
    )
    autoencoder.bn.running_mean.uniform_(-0.5, 0.5)
    autoencoder.bn.running_var.uniform_(0.5, 2)
    return kind(
        transformer=shaken(transformer),
        scheduler=flow(use_dynamic_shifting=True),
        vae=autoencoder,
        text_encoder=text_encoder,
        tokenizer=tokenizer(512, chat=True),
        **options,
    )


@seeded
def flux2() -> d.Flux2Pipeline:
    return _flux2(d.Flux2Pipeline, mistral3(), guidance=True)


@seeded
def klein(distilled: bool = False) -> d.Flux2KleinPipeline:
    text_encoder = qwen3(tf.Qwen3ForCausalLM, layers=28)
    return _flux2(d.Flux2KleinPipeline, text_encoder, guidance=False, is_distilled=distilled)


@seeded
def lumina2(**scheduler: Any) -> d.Lumina2Pipeline:
    transformer = d.Lumina2Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        hidden_size=24,
        num_layers=2,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=8,
        axes_dim_rope=(4, 4, 4),
        axes_lens=(300, 64, 64),
        cap_feat_dim=16,
    )
    return d.Lumina2Pipeline(
        transformer=shaken(transformer),
        scheduler=flow(**{"shift": 6.0, **scheduler}),
        vae=vae(blocks=4),
        text_encoder=gemma2(),
        tokenizer=tokenizer(1024),
    )


@seeded
def auraflow() -> d.AuraFlowPipeline:
    transformer = d.AuraFlowTransformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=32,
        pos_embed_max_size=256,
    )
    return d.AuraFlowPipeline(
        transformer=shaken(transformer),
        scheduler=flow(shift=1.73),
        vae=vae(),
        text_encoder=t5(tf.UMT5EncoderModel, tf.UMT5Config),
        tokenizer=tokenizer(256),
    )


@seeded
def wan(scheduler: Any = None, **options: Any) -> d.WanPipeline:
    transformer = d.WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=32,
        freq_dim=16,
        ffn_dim=32,
        num_layers=2,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=32,
    )
    autoencoder = d.AutoencoderKLWan(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 2, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        **LATENT_STATISTICS,
    )
    return d.WanPipeline(
        tokenizer=tokenizer(512),
        text_encoder=t5(tf.UMT5EncoderModel, tf.UMT5Config),
        vae=autoencoder,
        scheduler=scheduler or flow(),
        transformer=shaken(transformer),
        **options,
    )


@seeded
def ltx(timestep_conditioning: bool = False) -> d.LTXPipeline:
    transformer = d.LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        patch_size=1,
        patch_size_t=1,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        num_layers=1,
        caption_channels=32,
    )
    autoencoder = d.AutoencoderKLLTXVideo(
        in_channels=3,
        out_channels=3,
        latent_channels=8,
        block_out_channels=(8,) * 4,
        decoder_block_out_channels=(8,) * 4,
        layers_per_block=(1,) * 5,
        decoder_layers_per_block=(1,) * 5,
        spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False),
        decoder_inject_noise=(False,) * 5,
        upsample_residual=(False,) * 4,
        upsample_factor=(1,) * 4,
        timestep_conditioning=timestep_conditioning,
        patch_size=1,
        patch_size_t=1,
        encoder_causal=True,
        decoder_causal=False,
        scaling_factor=1.3,
    )
    autoencoder.latents_mean.uniform_(-0.5, 0.5)
    autoencoder.latents_std.uniform_(0.5, 2)
    config = {"use_dynamic_shifting": True, "base_shift": 0.95, "max_shift": 2.05, "shift_terminal": 0.1}
    return d.LTXPipeline(
        scheduler=flow(**config, base_image_seq_len=1024, max_image_seq_len=2**17),
        vae=autoencoder,
        text_encoder=t5(),
        tokenizer=tokenizer(128),
        transformer=shaken(transformer),
    )


@seeded
def cogview4() -> d.CogView4Pipeline:
    transformer = d.CogView4Transformer2DModel(
        patch_size=2,
        in_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        out_channels=4,
        text_embed_dim=16,
        time_embed_dim=8,
        condition_dim=4,
        sample_size=8,
        rope_axes_dim=(16, 16),
    )
    config = {"base_shift": 0.25, "max_shift": 0.75, "use_dynamic_shifting": True, "time_shift_type": "linear"}
    return d.CogView4Pipeline(
        transformer=shaken(transformer),
        scheduler=d.FlowMatchEulerDiscreteScheduler(**config),
        vae=vae(),
        text_encoder=glm(),
        tokenizer=tokenizer(1024, side="left"),
    )


@seeded
def kandinsky5() -> d.Kandinsky5T2IPipeline:
    transformer = d.Kandinsky5Transformer3DModel(
        in_visual_dim=4,
        in_text_dim=16,
        in_text_dim2=16,
        time_dim=16,
        out_visual_dim=4,
        patch_size=(1, 2, 2),
        model_dim=32,
        ff_dim=32,
        num_text_blocks=1,
        num_visual_blocks=1,
        axes_dims=(4, 6, 6),
    )
    processor = tf.Qwen2VLProcessor(
        image_processor=tf.Qwen2VLImageProcessor(patch_size=14, temporal_patch_size=2, merge_size=2),
        tokenizer=tokenizer(2048, ends=False),
        video_processor=tf.Qwen2VLVideoProcessor(),
    )
    return d.Kandinsky5T2IPipeline(
        transformer=shaken(transformer),
        scheduler=flow(),
        vae=vae(blocks=4),
        text_encoder=qwen25_vl(),
        tokenizer=processor,
        text_encoder_2=clip(length=77),
        tokenizer_2=tokenizer(77),
    )


def two_sizes(pipeline: Any) -> None:
    """(width, height) of the toy's images, and the size of a call without one."""
    start_after_template(pipeline)
    pipeline.resolutions = [(48, 32), (32, 64), (1024, 1024)]


@seeded
def hidream() -> d.HiDreamImagePipeline:
    transformer = d.HiDreamImageTransformer2DModel(
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_channels=[32, 16],
        text_emb_dim=32,
        num_routed_experts=4,
        num_activated_experts=2,
        axes_dims_rope=(4, 2, 2),
        max_resolution=(16, 16),
        llama_layers=(0, 1),
        force_inference_output=True,
    )
    pooled = {"kind": tf.CLIPTextModelWithProjection, "length": 218}
    return d.HiDreamImagePipeline(
        transformer=shaken(transformer),
        scheduler=flow(),
        vae=vae(),
        text_encoder=clip(**pooled),
        tokenizer=tokenizer(218),
        text_encoder_2=clip(**pooled),
        tokenizer_2=tokenizer(218),
        text_encoder_3=t5(),
        tokenizer_3=tokenizer(128),
        text_encoder_4=llama(),
        tokenizer_4=tokenizer(128),
    )


def smaller_area(pipeline: Any) -> None:
    pipeline.default_sample_size = 8
    pipeline.tokenizer_4.pad_token = pipeline.tokenizer_4.eos_token


@seeded
def hunyuan_image(guidance: bool = False, guider: Any = None, **config: Any) -> d.HunyuanImagePipeline:
    transformer = d.HunyuanImageTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        patch_size=(1, 1),
        guidance_embeds=guidance,
        text_embed_dim=16,
        text_embed_2_dim=32,
        rope_axes_dim=(4, 4),
        **config,
    )
    autoencoder = d.AutoencoderKLHunyuanImage(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(32,) * 3,
        layers_per_block=1,
        spatial_compression_ratio=4,
        sample_size=32,
        scaling_factor=0.75,
    )
    return d.HunyuanImagePipeline(
        scheduler=flow(shift=5.0),
        vae=autoencoder,
        text_encoder=qwen25_vl(),
        tokenizer=tokenizer(2048, ends=False),
        text_encoder_2=t5(),
        tokenizer_2=tokenizer(128),
        transformer=shaken(transformer),
        guider=guider,
    )
