"""Rewards of whole groups: diversity (Vendi score), closeness to a set of images (Frechet distance), as in DRAGON.

The credit of a member is what the set loses without it (`credit: leave_one_out`), or the value (`credit: broadcast`).
Features are computed once per image, not once per subset.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

import torch
from torch import Tensor, nn

from diffalign.data.images import image_suffixes, read_image
from diffalign.naming import unknown
from diffalign.rewards.base import Metadata
from diffalign.rewards.contract import check_contract
from diffalign.rewards.features import encoder
from diffalign.rewards.functions.sets import Statistics, frechet_distance, statistics, vendi_score
from diffalign.rewards.groups import Credit, GroupReward, SetValue, broadcast, leave_one_out
from diffalign.rewards.weights import MissingWeights, read

DINO = "facebook/dinov2-small"
DINO_FILES = ((DINO, "model.safetensors"), (DINO, "preprocessor_config.json"))
CREDITS: dict[str, Credit] = {"leave_one_out": leave_one_out, "broadcast": broadcast}

CreditName = Literal["leave_one_out", "broadcast"]


class FeatureSetReward(GroupReward):
    """A value of a set of features, distributed to the images."""

    differentiable = True
    licence = "Apache-2.0 (DINOv2)"
    weights = DINO_FILES

    def __init__(self, value: SetValue, name: str, features: nn.Module, credit: str) -> None:
        """Wraps a value `(features (n, D), prompts, metadata) -> number`.

        Raises:
            ValueError: If the credit is unknown.
        """
        if credit not in CREDITS:
            raise unknown("credit", credit, CREDITS)
        super().__init__(value, name=name, credit=CREDITS[credit], differentiable=True)
        self._features = features.eval().requires_grad_(False)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Moves the encoder."""
        self._features.to(device=device, dtype=dtype)
        return self

    def __call__(self, images: Tensor, prompts: Sequence[str], metadata: Sequence[Metadata]) -> Tensor:
        """Credits `(B,)` of images `(B, 3, H, W)` in [0, 1]; see `GroupReward`."""
        return super().__call__(self._features(images), prompts, metadata)

    def self_test(self) -> None:
        """Contract on a group of four pictures of noise."""
        images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        check_contract(self, images, ["noise"] * 4, [{}] * 4)


def _label(kind: str, features: str, credit: str) -> str:
    """`vendi_dinov2-small`, and the credit where it is not the default."""
    return f"{kind}_{Path(features).name.lower()}{'' if credit == 'leave_one_out' else f'_{credit}'}"


class VendiReward(FeatureSetReward):
    """Effective number of different images in a group (arXiv 2210.02410): 1 for copies, n for n orthogonal ones."""

    def __init__(self, features: str = DINO, *, credit: CreditName = "leave_one_out") -> None:
        """Loads the encoder.

        Args:
            features: Hub id or folder of a vision model, or `pixels`.
            credit: leave_one_out or broadcast.

        Raises:
            MissingWeights: If the encoder's files cannot be found.
            ValueError: If the credit is unknown.
        """
        super().__init__(
            lambda each, prompts, metadata: vendi_score(each),
            _label("vendi", features, credit),
            encoder(features),
            credit,
        )


class FrechetReward(FeatureSetReward):
    """Minus the Frechet distance of a group to a set of reference images, or to statistics of one."""

    def __init__(self, reference: str, features: str = DINO, *, credit: CreditName = "leave_one_out") -> None:
        """Loads the encoder and the reference.

        Args:
            reference: A folder of images, or a safetensors file of `mean` `(D,)` and `covariance` `(D, D)` (write it
                with `save_statistics`).
            features: Hub id or folder of a vision model, or `pixels`; the one that the statistics were made with.
            credit: leave_one_out or broadcast.

        Raises:
            MissingWeights: If the encoder's files cannot be found, or there is no reference.
            ValueError: If the reference is unreadable, of another encoder, or the credit is unknown.
        """
        self._reference: Statistics | None = None
        super().__init__(self._closeness, _label("frechet", features, credit), encoder(features), credit)
        self._reference = load_statistics(reference, self._features)

    def _closeness(self, each: Tensor, prompts: Sequence[str], metadata: Sequence[Metadata]) -> Tensor:
        """Minus the distance of features `(n, D)`."""
        if self._reference is None:
            raise ValueError("the reference is not loaded yet")
        return -frechet_distance(each, Statistics(*(value.to(each) for value in self._reference)))


def load_statistics(reference: str | Path, features: nn.Module) -> Statistics:
    """Statistics of a folder of images, or those of a file.

    Raises:
        MissingWeights: If there is neither.
        ValueError: If the file holds something else, or the folder no images.
    """
    path = Path(reference).expanduser()
    if path.is_dir():
        return statistics(folder_features(path, features))
    if not path.is_file():
        raise MissingWeights(f"there is no reference {path}; give a folder of images or a file of statistics")
    tensors = read(path)
    if set(tensors) != {"mean", "covariance"}:
        raise ValueError(f"{path} holds {sorted(tensors)}; statistics are mean (D,) and covariance (D, D)")
    return Statistics(tensors["mean"], tensors["covariance"])


def folder_features(folder: Path, features: nn.Module) -> Tensor:
    """Features `(N, D)` of all images of a folder, sorted by name.

    Raises:
        ValueError: If it holds no images.
    """
    suffixes = image_suffixes()
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes)
    if not files:
        raise ValueError(f"{folder} holds no images ({', '.join(sorted(suffixes))})")
    with torch.no_grad():
        return torch.cat([features(read_image(path)[None]) for path in files])


def save_statistics(made: Statistics, path: str | Path) -> None:
    """Writes statistics as the file that `FrechetReward` reads."""
    from safetensors.torch import save_file

    save_file({"mean": made.mean.contiguous(), "covariance": made.covariance.contiguous()}, path)
