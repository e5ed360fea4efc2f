"""The detector of the embedded world, which knows classes, colours and masks of its 32 x 32 scenes."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from diffalign.evaluation.judges import Detection, Detector


class ShapesDetector:
    """Scenes to detections with colours; the vocabulary is fixed, so the labels that are asked for are not read."""

    name = "shapes"

    def describe(self) -> dict[str, Any]:
        """What identifies the detector in a result: it is code, its version is the package's."""
        from diffalign import __version__

        return {"name": self.name, "model": "diffalign.shapes.detect", "revision": __version__}

    def __call__(self, images: Tensor, labels: object = None) -> list[list[Detection]]:
        """Detections of scenes `(B, 3, 32, 32)`, best first; see `diffalign.evaluation.judges.Detector`."""
        from diffalign.shapes import detect as find

        return find(images.detach().cpu())


def detect() -> Detector:
    """The detector; it has no weights and no options."""
    return ShapesDetector()
