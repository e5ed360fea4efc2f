"""Common interface of models that embed images and texts in one space: open_clip and transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from torch import Tensor

from diffalign.rewards.clip_open_clip import HUB, LOCAL, from_folder, from_hub, from_tag
from diffalign.rewards.clip_transformers import TransformersClip
from diffalign.shapes import shipped


class ClipModel(Protocol):
    """The methods that rewards call; every such model is a `torch.nn.Module` too."""

    context: int

    @property
    def logit_scale(self) -> float:
        """The trained factor of the cosine."""
        ...

    def image_features(self, images: Tensor) -> Tensor:
        """Embeddings `(B, D)`, not normalised, of images `(B, 3, H, W)` in [0, 1], with a gradient."""
        ...

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Embeddings `(B, D)`, not normalised; texts are cut off at `context` tokens."""
        ...

    def too_long(self, texts: Sequence[str]) -> list[bool]:
        """Whether each text has more tokens than are read."""
        ...


def load_clip(model: str | Path, pretrained: str | Path | None = None) -> ClipModel:
    """Loads a model.

    Args:
        model: With `pretrained`, an architecture of open_clip. Without: `shapes-clip`, which comes with the package; a
            local folder (in the format of open_clip, when it holds `open_clip_config.json`, or of transformers),
            `local-dir:FOLDER` or `hf-hub:OWNER/NAME` for open_clip, or a hub id for transformers.
        pretrained: A tag or a file of weights for an architecture of open_clip.

    Raises:
        MissingWeights: If files cannot be found.
        ValueError: If the names are unknown or the checkpoint is another model's.
    """
    name = str(model)
    if pretrained is not None:
        return from_tag(name, str(pretrained))
    if name.startswith(HUB):
        return from_hub(name.removeprefix(HUB))
    if name == shipped.CLIP:
        return from_folder(shipped.checkpoint(name))
    folder = Path(name.removeprefix(LOCAL)).expanduser()
    if name.startswith(LOCAL) or (folder / "open_clip_config.json").is_file():
        return from_folder(folder)
    return TransformersClip(name, argument="model")
