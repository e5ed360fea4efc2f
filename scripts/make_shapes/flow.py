"""Trains shapes-flow-guided: ``python scripts/make_shapes/flow.py --vae VAE --out FOLDER [--steps 11000]``.

Times are logit-normal with mean --tilt: 0 spreads them evenly, 1 dwells where layout is decided. The shipped model is
7,000 of 11,000 steps at 0, then ``--init FOLDER/step-7000 --tilt 1 --rate 2e-3 --steps 6000 --seed 1``, then the same
from there with ``--tilt 0.7 --seed 2``. Its scheduler spends most steps at high noise (shift 3) for the same reason.

A StableDiffusion3Pipeline of 3 M parameters: MMDiT of 4 layers and width 96 on 8x8x8 latents, two tiny CLIP text
encoders and a tiny T5 trained with it. Rectified flow with logit-normal t, 10 % empty prompts, AdamW, EMA. Every 1,000
steps the averaged pipeline is saved to FOLDER/step-N and its held-out score is written to FOLDER/log.jsonl.
"""

from __future__ import annotations

from pathlib import Path

import text
import torch
from common import Log, fit, latent_pool, load_vae, parse, snapshots
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from torch import Tensor, nn


class Flow(nn.Module):
    """Text encoders and transformer, called as the pipeline calls them."""

    def __init__(self) -> None:
        super().__init__()
        self.text_1 = text.clip(48, 2, projection=True)
        self.text_2 = text.clip(16, 1, projection=True)
        self.text_3 = text.t5(64, 1)
        self.transformer = SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=8,
            out_channels=8,
            num_layers=4,
            attention_head_dim=32,
            num_attention_heads=3,
            joint_attention_dim=64,
            caption_projection_dim=96,
            pooled_projection_dim=64,
            pos_embed_max_size=8,
            qk_norm="rms_norm",
        )

    def encode(self, clip_ids: Tensor, t5_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Token embeddings (B, 28, 64) and pooled ones (B, 64); both CLIP encoders share one tokenizer."""
        outs = [m(clip_ids, output_hidden_states=True) for m in (self.text_1, self.text_2)]
        clip_tokens = torch.cat([out.hidden_states[-2] for out in outs], -1)
        tokens = torch.cat([clip_tokens, self.text_3(t5_ids)[0]], -2)
        return tokens, torch.cat([out.text_embeds for out in outs], -1)

    def forward(self, x: Tensor, t: Tensor, clip_ids: Tensor, t5_ids: Tensor) -> Tensor:
        """Velocity (B, 8, 8, 8) at times t (B,) in [0, 1]."""
        tokens, pooled = self.encode(clip_ids, t5_ids)
        return self.transformer(x, tokens, pooled, t * 1000, return_dict=False)[0]


def noised(latents: Tensor, tilt: float) -> tuple[Tensor, Tensor, Tensor]:
    """Noise like the latents, logit-normal times (B,) with mean ``tilt``, and the latents between."""
    noise = torch.randn_like(latents)
    t = torch.sigmoid(torch.randn(len(latents)) + tilt)
    return noise, t, torch.lerp(latents, noise, t[:, None, None, None])


def pipeline(flow: Flow, vae: AutoencoderKL) -> StableDiffusion3Pipeline:
    """The ordinary diffusers pipeline around the trained parts."""
    return StableDiffusion3Pipeline(
        transformer=flow.transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae,
        text_encoder=flow.text_1,
        tokenizer=text.tokenizer(text.CLIP_LENGTH, begin=True),
        text_encoder_2=flow.text_2,
        tokenizer_2=text.tokenizer(text.CLIP_LENGTH, begin=True),
        text_encoder_3=flow.text_3,
        tokenizer_3=text.tokenizer(text.T5_LENGTH, begin=False),
    )


@torch.no_grad()
def generate(
    pipe: StableDiffusion3Pipeline, prompts: list[str], guidance: float, noise: Tensor, steps: int = 8
) -> Tensor:
    """Images in [0, 1] through the pipeline itself."""
    pipe.set_progress_bar_config(disable=True)
    return pipe(
        prompts,
        guidance_scale=guidance,
        latents=noise,
        num_inference_steps=steps,
        max_sequence_length=text.T5_LENGTH,
        height=32,
        width=32,
        output_type="pt",
    ).images


def restore(flow: Flow, folder: Path) -> None:
    """Take the weights of a saved pipeline."""
    pipe = StableDiffusion3Pipeline.from_pretrained(folder)
    flow.transformer.load_state_dict(pipe.transformer.state_dict())
    parts = (flow.text_1, flow.text_2, flow.text_3), (pipe.text_encoder, pipe.text_encoder_2, pipe.text_encoder_3)
    for own, saved in zip(*parts, strict=True):
        own.load_state_dict(saved.state_dict())


def main() -> None:
    """Command line."""
    parser = parse(__doc__, steps=11000, rate=3e-3)
    parser.add_argument("--init", type=Path, help="saved pipeline to start from")
    parser.add_argument("--tilt", type=float, default=0.0, help="mean of the logit-normal times")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    log = Log(args.out / "log.jsonl")
    vae = load_vae(args.vae)
    latents, captions = latent_pool(vae, args.pool, args.seed, args.cache)
    clip_ids = text.ids(text.tokenizer(text.CLIP_LENGTH, begin=True), [*captions, ""], text.CLIP_LENGTH)
    t5_ids = text.ids(text.tokenizer(text.T5_LENGTH, begin=False), [*captions, ""], text.T5_LENGTH)
    flow = Flow()
    if args.init:
        restore(flow, args.init)
    forward = torch.compile(flow) if args.compile else flow
    log(event="start", parameters=sum(p.numel() for m in (flow, vae) for p in m.parameters()), scenes=len(latents))

    def loss_of(pick: Tensor) -> Tensor:
        noise, t, x = noised(latents[pick], args.tilt)
        words = torch.where(torch.rand(len(pick)) < 0.1, len(captions), pick)
        v = forward(x, t, clip_ids[words], t5_ids[words])
        return (v - (noise - latents[pick])).square().mean()

    snapshots(fit(flow, latents, args, loss_of, log), lambda average: pipeline(average, vae), generate, log)


if __name__ == "__main__":
    main()
