"""DiffusionNFT: two implicit policies contrasted on re-noised samples of the averaged one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffalign.config import key
from diffalign.losses import forward_process
from diffalign.trainers.forward_process import ForwardProcessTrainer, NoisedSample
from diffalign.trainers.forward_process_config import ForwardProcessConfig


@dataclass(frozen=True, kw_only=True)
class NFTConfig(ForwardProcessConfig):
    """DiffusionNFT."""

    method: str = key("nft", "training method; `--help METHOD` shows its own keys")
    nft_beta: float = key(
        1.0, "distance of the implicit good and bad policies from the old one", above=0, section="nft"
    )


class NFTTrainer(ForwardProcessTrainer):
    """DiffusionNFT (2509.16117); Edit-R1 is this with `group_filter`.

    Released form: self-normalised x0 errors, times the advantage clip. The old policy samples.
    """

    Config = NFTConfig
    args: NFTConfig
    samples_with_old = True

    def objective(
        self, value: Tensor, before: Tensor | None, point: NoisedSample, advantages: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The two branches, weighted by label."""
        if before is None:
            raise ValueError("DiffusionNFT contrasts with the old policy's velocity, and none was given")
        label = forward_process.optimality(advantages, clip=self.args.advantage_clip)
        terms = forward_process.nft(value, before, point.x0, point.noise, point.t, label, beta=self.args.nft_beta)
        return self.args.advantage_clip * terms, torch.zeros_like(terms)
