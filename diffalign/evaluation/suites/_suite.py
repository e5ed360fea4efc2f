"""What a benchmark suite is: how to read its prompts, which judges it needs, how an image is scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from torch import Tensor

from diffalign.evaluation import noun_chunks
from diffalign.evaluation.judges import Judges

Line = Mapping[str, Any]
"""A prompt that is ready to be scored: `prompt`, `task`, and the suite's own fields."""


class Record(NamedTuple):
    """A prompt and its metadata as the suite's file has them."""

    prompt: str
    metadata: dict[str, Any]


class Outcome(NamedTuple):
    """What an image got.

    Attributes:
        score: of the image; NaN for "could not score", never 0.
        parts: further values of the image by name, for the suite's own tables.
    """

    score: float
    parts: Mapping[str, Sequence[float]] = {}


Scorer = Callable[[Tensor, Sequence[Line], Judges], list[Outcome]]


def no_details(lines: Sequence[Line], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """For suites without a table of their own."""
    return {}


@dataclass(frozen=True)
class Suite:
    """A benchmark.

    Attributes:
        name: unique; another rule or another prompt set is another name.
        title: the paper's name for it.
        source: paper and code that the rules are taken from.
        needs: roles of `Judges` that must be filled.
        read: prompts of its file in file order; refuses the file of another suite.
        make_line: a prompt and its metadata made ready; refuses what lacks a needed field, by the field's name.
        score_images: outcome of each of `(B, 3, H, W)` images in [0, 1] for its line.
        soft: name of the suite that is better to train on: graded where this one is strict, and in [0, 1]; empty where
            it is this one.
        optional: roles that it uses if they are filled.
        published: role -> name of the judge that the published figures were made with.
        images_per_prompt: as published.
        overall: `tasks`: unweighted mean of the tasks; `images`: mean of all images.
        file_names: `folder`: a numbered folder per prompt, as GenEval's; `prompt`: files called by their prompt.
        sheets: field of a line that names a file with all four images of its prompt in a 2 x 2 sheet, where the
            released script reads such; empty for none.
        details: the suite's own tables.
        range: lowest and highest score of an image, None where it is open.
    """

    name: str
    title: str
    source: str
    needs: tuple[str, ...]
    read: Callable[[Path], list[Record]]
    make_line: Callable[[str, Mapping[str, Any], Judges], dict[str, Any]]
    score_images: Scorer
    soft: str = ""
    optional: tuple[str, ...] = ()
    published: Mapping[str, str] = field(default_factory=dict)
    images_per_prompt: int = 4
    overall: Literal["tasks", "images"] = "images"
    file_names: Literal["folder", "prompt"] = "folder"
    sheets: str = ""
    details: Callable[[Sequence[Line], Sequence[Outcome]], dict[str, Any]] = no_details
    range: tuple[float, float] | None = (0.0, 1.0)

    def prepare(self, judges: Judges) -> Judges:
        """The judges with the small prompt parser where one is needed and none is given.

        Raises:
            ValueError: a judge that the suite needs is missing.
        """
        if "parse" in self.needs and judges.parse is None:
            judges = replace(judges, parse=noun_chunks.parse)
        missing = [role for role in self.needs if getattr(judges, role) is None]
        if missing:
            given = ", ".join(judges.names()) or "none"
            raise ValueError(f"suite {self.name} needs a judge for {', '.join(missing)}; given: {given}")
        return judges

    def line(self, prompt: str, metadata: Mapping[str, Any], judges: Judges) -> Line:
        """A prompt ready to be scored.

        Raises:
            ValueError: a needed field is missing or does not fit; the message names suite, prompt and field.
        """
        try:
            return {"task": self.name, **self.make_line(prompt, metadata, judges), "prompt": prompt}
        except ValueError as error:
            raise ValueError(f"suite {self.name}, prompt {prompt!r}: {error}") from error

    def read_lines(self, path: Path, judges: Judges) -> list[Line]:
        """All lines of the suite's prompt file (`read`, then `line`)."""
        return [self.line(record.prompt, record.metadata, judges) for record in self.read(Path(path))]

    def score(self, images: Tensor, lines: Sequence[Line], judges: Judges) -> list[Outcome]:
        """Outcome of each image.

        Args:
            images: `(B, 3, H, W)` in [0, 1].
            lines: the line of each image.
            judges: of `prepare`.

        Raises:
            ValueError: another number of lines than of images.
        """
        if len(images) != len(lines):
            raise ValueError(f"{len(images)} images but {len(lines)} lines; give the line of each image")
        return self.score_images(images, lines, judges) if len(images) else []

    def column(self, judges: Judges) -> str:
        """Name of the figures: the suite's, with its judges behind "@" where they are not those of the publication.

        `compbench_spatial@owlv2` and `compbench_spatial` are different measures and never share a column.
        """
        given = judges.names()
        others = [name for role, name in given.items() if role in self._roles() and self.published.get(role) != name]
        return f"{self.name}@{'+'.join(others)}" if others else self.name

    def _roles(self) -> tuple[str, ...]:
        return (*self.needs, *self.optional)
