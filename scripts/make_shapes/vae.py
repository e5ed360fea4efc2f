"""Trains the shapes autoencoder: ``python scripts/make_shapes/vae.py OUT [--minutes 6]``.

AutoencoderKL, factor 4, 8 latent channels; L1 + squared error + 1e-3 KL; the learning rate falls to zero over the run.
The latents' scale is measured at the end and kept as ``scaling_factor``, so that scaled latents have unit variance.

``--init FOLDER`` trains the decoder alone, on the latents of FOLDER's encoder: a model of those latents stays valid. It
sees empty scenes too (a decoder that never did draws a grid in their place), and latents with noise of up to 0.3
standard deviations, as a sampler leaves them.

``--teacher FOLDER`` with ``--channels 16 32 48`` distils an autoencoder into a smaller one that shares its latents:
the new encoder learns the teacher's posterior and the new decoder learns as with ``--init``. Decoding is most of the
cost of a tiny model's image, and the models of the teacher's latents stay valid. With ``--init`` too it goes on.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from functools import partial

import torch
from common import load_vae
from diffusers import AutoencoderKL
from pool import scene_pool
from vae_losses import decoder_loss, distillation_loss, whole_loss

from diffalign.evaluation import geneval
from diffalign.evaluation.geneval_prompts import TAGS
from diffalign.shapes import detect, prompts, render_batch, sample_scene


def build(channels: Sequence[int] = (32, 64, 96)) -> AutoencoderKL:
    """The untrained autoencoder, one level per entry of ``channels``."""
    blocks = len(channels)
    return AutoencoderKL(
        block_out_channels=tuple(channels),
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        layers_per_block=1,
        latent_channels=8,
        norm_num_groups=8,
        sample_size=32,
        shift_factor=0.0,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    )


@torch.no_grad()
def agreement(vae: AutoencoderKL, repeats: int = 2) -> dict[str, float]:
    """Per-task score of held-out scenes that went through the autoencoder."""
    lines = prompts("heldout") * repeats
    generator = torch.Generator().manual_seed(1)
    images = render_batch([sample_scene(line, generator) for line in lines])
    decoded = [vae.decode(vae.encode(part * 2 - 1).latent_dist.mode()).sample for part in images.split(96)]
    found = detect(torch.cat(decoded) / 2 + 0.5)
    verdicts = [(line["tag"], geneval.correct(d, line)) for d, line in zip(found, lines, strict=True)]
    return {tag: sum(ok for t, ok in verdicts if t == tag) / sum(t == tag for t, _ in verdicts) for tag in TAGS}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out")
    parser.add_argument("--minutes", type=float, default=7)
    parser.add_argument("--steps", type=int, default=0, help="fixed number of steps instead of minutes (reproducible)")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--pool", type=int, default=20000)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--init", help="autoencoder whose encoder is kept while the decoder trains on")
    parser.add_argument("--teacher", help="autoencoder whose latents the new one shares")
    parser.add_argument("--channels", type=int, nargs="+", default=[32, 64, 96])
    parser.add_argument("--noise", type=float, default=0.0, help="with --teacher: share of latents that are pure noise")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    images, _ = scene_pool(args.pool, args.seed)
    vae = load_vae(args.init) if args.init else build(args.channels)
    teacher = load_vae(args.teacher) if args.teacher else None
    if teacher:
        vae.register_to_config(scaling_factor=teacher.config.scaling_factor)
    trained, loss_of = (vae.decoder, decoder_loss) if args.init else (vae, whole_loss)
    if teacher:
        trained, loss_of = vae, partial(distillation_loss, teacher=teacher, noise=args.noise)
    print(f"{sum(p.numel() for p in vae.parameters()):,} parameters, {len(images)} scenes", flush=True)
    optimizer = torch.optim.AdamW(trained.parameters(), lr=args.rate, betas=(0.9, 0.99), weight_decay=1e-4)
    start, step, share = time.time(), 0, 0.0
    while share < 1:
        share = step / args.steps if args.steps else (time.time() - start) / (60 * args.minutes)
        for group in optimizer.param_groups:
            group["lr"] = args.rate * min(1, (step + 1) / 100) * max(0.01, 1 - share)
        pick = torch.randint(len(images), (args.batch,))
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(vae, images[pick].float() / 127.5 - 1)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 200 == 0:
            print(f"step {step} {time.time() - start:.0f}s loss {loss.item():.4f}", flush=True)
    if loss_of is whole_loss:
        with torch.no_grad():
            latents = [vae.encode(part.float() / 127.5 - 1).latent_dist.mode() for part in images[:2000].split(100)]
        vae.register_to_config(scaling_factor=1 / torch.cat(latents).std().item())
    print(f"scaling_factor {vae.config.scaling_factor:.4f}", agreement(vae, 4), flush=True)
    vae.save_pretrained(args.out)


if __name__ == "__main__":
    main()
