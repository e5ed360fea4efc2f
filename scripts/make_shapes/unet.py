"""Trains shapes-unet: ``python scripts/make_shapes/unet.py --vae VAE --out FOLDER [--steps 7000]``.

A StableDiffusionPipeline of 3 M parameters: a two-level UNet on 8x8x8 latents with cross attention at 4x4, and a tiny
CLIP text encoder trained with it. Epsilon prediction on Stable Diffusion's noise schedule, min-SNR weights (Hang et al.
2023, arXiv 2303.09556, gamma 5), 10 % empty prompts, AdamW, EMA. Snapshots and log as in flow.py; DDIM, 20 steps.
The shipped model is ``--steps 6000 --stop 2000``: left imperfect on purpose, the whole run reaches .76.
"""

from __future__ import annotations

import text
import torch
from common import Log, fit, latent_pool, load_vae, parse, snapshots
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn


class Denoiser(nn.Module):
    """Text encoder and UNet, called as the pipeline calls them."""

    def __init__(self) -> None:
        super().__init__()
        self.text = text.clip(48, 2, projection=False)
        self.unet = UNet2DConditionModel(
            sample_size=8,
            in_channels=8,
            out_channels=8,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            block_out_channels=(40, 72),
            layers_per_block=1,
            cross_attention_dim=48,
            attention_head_dim=4,
            norm_num_groups=8,
        )

    def forward(self, x: Tensor, t: Tensor, ids: Tensor) -> Tensor:
        """Noise (B, 8, 8, 8) at integer timesteps t (B,)."""
        return self.unet(x, t, self.text(ids)[0], return_dict=False)[0]


def scheduler() -> DDIMScheduler:
    """Stable Diffusion's own settings."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def pipeline(model: Denoiser, vae: AutoencoderKL) -> StableDiffusionPipeline:
    """The ordinary diffusers pipeline around the trained parts."""
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=model.text,
        tokenizer=text.tokenizer(text.CLIP_LENGTH, begin=True),
        unet=model.unet,
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@torch.no_grad()
def generate(
    pipe: StableDiffusionPipeline, prompts: list[str], guidance: float, noise: Tensor, steps: int = 20
) -> Tensor:
    """Images in [0, 1] through the pipeline itself."""
    pipe.set_progress_bar_config(disable=True)
    return pipe(
        prompts,
        guidance_scale=guidance,
        latents=noise,
        num_inference_steps=steps,
        height=32,
        width=32,
        output_type="pt",
    ).images


def main() -> None:
    """Command line."""
    args = parse(__doc__, steps=7000, rate=2e-3).parse_args()
    torch.manual_seed(args.seed)
    log = Log(args.out / "log.jsonl")
    vae = load_vae(args.vae)
    latents, captions = latent_pool(vae, args.pool, args.seed, args.cache)
    ids = text.ids(text.tokenizer(text.CLIP_LENGTH, begin=True), [*captions, ""], text.CLIP_LENGTH)
    alpha_bar = scheduler().alphas_cumprod
    snr = alpha_bar / (1 - alpha_bar)
    weights = snr.clamp(max=5) / snr
    model = Denoiser()
    forward = torch.compile(model) if args.compile else model
    log(event="start", parameters=sum(p.numel() for m in (model, vae) for p in m.parameters()), scenes=len(latents))

    def loss_of(pick: Tensor) -> Tensor:
        x0, noise = latents[pick], torch.randn(len(pick), 8, 8, 8)
        t = torch.randint(len(alpha_bar), (len(pick),))
        words = torch.where(torch.rand(len(pick)) < 0.1, len(captions), pick)
        signal = alpha_bar[t][:, None, None, None]
        prediction = forward(signal.sqrt() * x0 + (1 - signal).sqrt() * noise, t, ids[words])
        return ((prediction - noise).square().mean((1, 2, 3)) * weights[t]).mean()

    snapshots(fit(model, latents, args, loss_of, log), lambda average: pipeline(average, vae), generate, log)


if __name__ == "__main__":
    main()
