"""Interface between benchmark suites and the models that judge images: detectors, visual question answering, depth.

A suite never loads a model. It is given callables of the shapes below, most of which batch over images, and works with
what they return. Any callable of the right shape is a judge; a `name` attribute (`mask2former-swin-s`) goes into the
results, so that scores by different judges are never mixed.

Shared conventions: images are `(B, 3, H, W)` float in [0, 1], of one size, on any device; every result has one entry
per image, in order; results do not depend on the other images of the batch; no gradient is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Protocol

from torch import Tensor

__all__ = [
    "AnswerProbability",
    "Answerer",
    "Box",
    "ColorNamer",
    "DepthEstimator",
    "Detection",
    "Detector",
    "ImageScorer",
    "Judges",
    "ParsedPrompt",
    "PromptParser",
    "Similarity",
    "Word",
    "YesProbability",
    "judge_name",
]

Box = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Detection:
    """One found object.

    Attributes:
        label: class name, as the suite spells it.
        score: confidence in [0, 1].
        box: (x0, y0, x1, y1) in pixels of the image that was given, y downwards.
        color: colour name where the detector knows it.
        mask: (H, W) bool, or None.
    """

    label: str
    score: float
    box: Box
    color: str | None = None
    mask: Tensor | None = None


class Detector(Protocol):
    """Finds objects."""

    def __call__(self, images: Tensor, labels: Sequence[Sequence[str]], /) -> list[list[Detection]]:
        """Detections of each image, best score first.

        Args:
            images: `(B, 3, H, W)` in [0, 1].
            labels: for each image the class names that its scorer looks for. An open-vocabulary detector asks for
                these; one with a fixed vocabulary may ignore them and report all that it knows (a scorer picks).

        Returns:
            For each image everything above a low score (at most 0.05), so that each scorer applies its own threshold.
        """
        ...


class ColorNamer(Protocol):
    """Names the colours of found objects."""

    def __call__(self, images: Tensor, detections: Sequence[Sequence[Detection]], /) -> list[list[str | None]]:
        """A colour name for each detection of each image, None for "cannot say"; suites pass only those in question."""
        ...


class YesProbability(Protocol):
    """Answers yes-or-no questions with a probability."""

    def __call__(self, images: Tensor, questions: Sequence[Sequence[str]], /) -> list[list[float]]:
        """P(yes) / (P(yes) + P(no)) in [0, 1] for each question of each image; an image may have no question."""
        ...


class Answerer(Protocol):
    """Answers questions in words."""

    def __call__(self, images: Tensor, questions: Sequence[Sequence[str]], /) -> list[list[str]]:
        """The answer to each question of each image, stripped, as the model wrote it."""
        ...


class AnswerProbability(Protocol):
    """Probability that a model gives one of several spellings of an answer."""

    def __call__(
        self, images: Tensor, questions: Sequence[Sequence[str]], answers: Sequence[Sequence[Sequence[str]]], /
    ) -> list[list[float]]:
        """For each question the probability mass of the first answer token over the spellings' first tokens, in [0, 1].

        Args:
            images: `(B, 3, H, W)` in [0, 1].
            questions: for each image its questions.
            answers: for each question the accepted spellings ("3", "three", "Three"). A first token that two
                spellings share counts once.
        """
        ...


class DepthEstimator(Protocol):
    """Estimates depth."""

    def __call__(self, images: Tensor, /) -> Tensor:
        """`(B, H, W)` float of the images' size. Larger is nearer; scale and offset are free (scorers normalise)."""
        ...


class Similarity(Protocol):
    """Compares images with texts."""

    def __call__(self, images: Tensor, texts: Sequence[str], /) -> Tensor:
        """`(B,)` cosine similarities of image i and text i in [-1, 1], without factor, prefix or clamp."""
        ...


class Word(NamedTuple):
    """A word of a prompt.

    Attributes:
        text: as written.
        kind: its universal part-of-speech tag: NOUN, PROPN, ADJ, DET, ...
    """

    text: str
    kind: str


class ParsedPrompt(NamedTuple):
    """A prompt's words and noun chunks ("a red cup"), in order."""

    words: tuple[Word, ...]
    chunks: tuple[str, ...]


class PromptParser(Protocol):
    """Reads prompts, where a benchmark derives its questions from them."""

    def __call__(self, prompt: str, /) -> ParsedPrompt:
        """Words and noun chunks of a prompt."""
        ...


class ImageScorer(Protocol):
    """Scores images by themselves, for suites that are a list of prompts and no rule: any reward model."""

    def __call__(self, images: Tensor, prompts: Sequence[str], /) -> Tensor:
        """`(B,)` scores, higher is better; NaN for "could not score"."""
        ...


@dataclass(frozen=True)
class Judges:
    """The judges that a suite is given; those that it does not need stay None.

    Attributes:
        detect: finds objects.
        color: names their colours; None where the detector sets `Detection.color` itself.
        yes: answers yes-or-no questions with a probability.
        answer: answers questions in words.
        answer_probability: probability of given answers.
        depth: estimates depth.
        similarity: compares an image with a text.
        parse: reads prompts; None where the small parser of `diffalign.evaluation.noun_chunks` will do.
        score: scores images by themselves.
    """

    detect: Detector | None = None
    color: ColorNamer | None = None
    yes: YesProbability | None = None
    answer: Answerer | None = None
    answer_probability: AnswerProbability | None = None
    depth: DepthEstimator | None = None
    similarity: Similarity | None = None
    parse: PromptParser | None = None
    score: ImageScorer | None = None

    def names(self) -> dict[str, str]:
        """Role -> name of each judge that is there, in the order of the attributes."""
        present = ((f.name, getattr(self, f.name)) for f in fields(self))
        return {role: judge_name(judge) for role, judge in present if judge is not None}


def judge_name(judge: Any) -> str:
    """What results call a judge: its `name`, else its function's or class's name."""
    return str(getattr(judge, "name", None) or getattr(judge, "__name__", None) or type(judge).__name__)
