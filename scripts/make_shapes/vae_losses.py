"""Losses of the shapes autoencoder on images (B, 3, 32, 32) in [-1, 1]: from its own, fixed or a teacher's latents."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F


def whole_loss(vae: AutoencoderKL, x: Tensor) -> Tensor:
    """Reconstruction through sampled latents, with a little KL."""
    posterior = vae.encode(x).latent_dist
    y = vae.decode(posterior.sample()).sample.float()
    return F.l1_loss(y, x) + F.mse_loss(y, x) + 1e-3 * posterior.kl().mean() / posterior.mean[0].numel()


def decoder_loss(vae: AutoencoderKL, x: Tensor) -> Tensor:
    """Reconstruction from the encoder's own latents, which stay as they are."""
    with torch.no_grad():
        latents = vae.encode(empty_some(x)).latent_dist.mode()
    return redrawn(vae, latents, x)


def distillation_loss(vae: AutoencoderKL, x: Tensor, teacher: AutoencoderKL, noise: float) -> Tensor:
    """Reconstruction from the teacher's latents, whose distribution the encoder learns.

    A share ``noise`` of the latents is pure noise, for which the teacher's picture is the target.
    """
    count = round(noise * len(x))
    with torch.no_grad():
        posterior = teacher.encode(empty_some(x)).latent_dist
        z = torch.randn_like(posterior.mean[:count]) / teacher.config.scaling_factor
        picture = teacher.decode(z).sample.float() if count else x[:0]
    own = vae.encode(x).latent_dist
    means = F.mse_loss(own.mean.float(), posterior.mean.float()) / posterior.mean.float().var()
    spreads = F.mse_loss(own.logvar.float(), posterior.logvar.float())
    drawn = redrawn(vae, torch.cat([z, posterior.mode()[count:]]), torch.cat([picture, x[count:]]))
    return drawn + means + 0.01 * spreads


def empty_some(x: Tensor) -> Tensor:
    """The batch with its last sixteenth turned into empty scenes, in place."""
    empty = len(x) // 16
    x[len(x) - empty :] = (torch.rand(empty, 1, 1, 1) - 0.5) * 0.12
    return x


def redrawn(vae: AutoencoderKL, latents: Tensor, x: Tensor) -> Tensor:
    """Error of the picture decoded from slightly noisy latents."""
    width = torch.rand(len(x), 1, 1, 1) * 0.3 / vae.config.scaling_factor
    y = vae.decode(latents + width * torch.randn_like(latents)).sample.float()
    return F.l1_loss(y, x) + F.mse_loss(y, x)
