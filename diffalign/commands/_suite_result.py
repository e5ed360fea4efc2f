"""The result of a suite as JSON: what was measured, how, on which prompts, and how sure the figures are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffalign.commands._suite_images import Shot
from diffalign.commands._suite_parts import Part

if TYPE_CHECKING:
    from diffalign.evaluation.judges import Judges
    from diffalign.evaluation.suites import Outcome

LIBRARIES = ("torch", "torchvision", "diffusers", "transformers", "open_clip_torch", "spacy")


def make_result(
    name: str,
    parts: Sequence[Part],
    judges: Judges,
    shots: Sequence[Shot],
    outcomes: Mapping[int, Outcome],
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """The whole result.

    Args:
        name: of the benchmark.
        parts: the suites with their prompts.
        judges: the judges that were used.
        shots: the images.
        outcomes: by the number of the shot; NaN for images that could not be read or judged.
        about: what else is known: label, generation, images.

    Raises:
        ValueError: a suite of which no image could be scored.
    """
    from diffalign.evaluation.suites import summarise
    from diffalign.report.suite_results import score_entries

    details, lines = {}, []
    for p, part in enumerate(parts):
        numbers = [number for number, shot in enumerate(shots) if shot.part == p]
        own = [part.lines[shots[number].line] for number in numbers]
        summary = summarise(part.suite, own, [outcomes[number] for number in numbers], judges)
        whole = not any(name.startswith(part.inside("")) for name in about["images"]["missing"])
        if summary["details"] and whole:  # tables by groups of prompts would shift where an image is missing
            details[part.task or part.suite.name] = summary["details"]
        lines += _lines(part, p, shots, outcomes)
    overall = "tasks" if len(parts) > 1 else parts[0].suite.overall
    entries = score_entries({"prompts": lines, "overall_of": overall})
    return {
        "suite": name,
        "variant": variant_of(name, parts, judges),
        "overall": entries.pop("overall"),
        "tasks": entries,
        "overall_of": overall,
        "details": details,
        **about,
        "subset": _subset(parts),
        "judges": {role: described_judge(judge) for role, judge in _filled(judges).items()},
        "versions": versions(),
        "prompts": lines,
    }


def variant_of(name: str, parts: Sequence[Part], judges: Judges) -> str:
    """The benchmark's name, behind "@" the judges that are not those of the publication."""
    if len(parts) == 1:
        return parts[0].suite.column(judges)
    columns = [part.suite.column(judges).partition("@")[2].split("+") for part in parts]
    others = dict.fromkeys(judge for column in columns for judge in column if judge)
    return f"{name}@{'+'.join(others)}" if others else name


def _lines(part: Part, number: int, shots: Sequence[Shot], outcomes: Mapping[int, Outcome]) -> list[dict[str, Any]]:
    """One entry per prompt of a task: mean score, scores and files of its images; equal prompts share one."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for index, shot in enumerate(shots):
        if shot.part != number:
            continue
        line = part.lines[shot.line]
        key = part.task_of(line), str(line["prompt"])
        entry = found.setdefault(key, {"prompt": key[1], "task": key[0], "score": None, "images": [], "files": []})
        score = outcomes[index].score
        entry["images"].append(float(score) if math.isfinite(score) else None)
        entry["files"].append(shot.file)
    for entry in found.values():
        known = [value for value in entry["images"] if value is not None]
        entry["score"] = sum(known) / len(known) if known else None
    return list(found.values())


def _subset(parts: Sequence[Part]) -> str:
    """`24 of 553 prompts`, empty for all of them."""
    used, available = (sum(count) for count in zip(*((len(p.lines), p.available) for p in parts), strict=True))
    return f"{used} of {available} prompts" if used < available else ""


def _filled(judges: Judges) -> dict[str, Any]:
    return {role: getattr(judges, role) for role in judges.names()}


def described_judge(judge: Any) -> dict[str, Any]:
    """Name, source, revision and options."""
    from diffalign.rewards.detectors import described

    return described(judge)


def versions() -> dict[str, str]:
    """Versions of this package and of the libraries that scores depend on."""
    from diffalign import __version__

    found = {"diffalign": __version__}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def relative_folder(folder: Path, file: Path) -> str:
    """A folder as it is written into a file beside it: relative where it lies inside, absolute elsewhere."""
    folder, base = folder.resolve(), file.parent.resolve()
    return folder.relative_to(base).as_posix() if folder.is_relative_to(base) else folder.as_posix()
