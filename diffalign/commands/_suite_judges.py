"""The judges of a suite by role: what the options say, else the model that the benchmark's own is replaced by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffalign.naming import unknown

if TYPE_CHECKING:
    from diffalign.evaluation.judges import Judges
    from diffalign.evaluation.suites import Suite

DEFAULTS = {
    "color": "clip", "yes": "blip_vqa", "answer": "vlm", "answer_probability": "vlm", "depth": "dpt",
    "similarity": "clip", "score": "hpsv2",
}  # fmt: skip
"""Role -> judge, where neither an option nor the suite says otherwise."""
COCO, OPEN_VOCABULARY = "mask2former", "grounding_dino"
"""Detectors for suites that were published with a Mask2Former, and for all others."""
NONE = "none"
"""Name for no judge, where one is optional."""


def roles() -> list[str]:
    """Fields of `Judges`."""
    from dataclasses import fields

    from diffalign.evaluation.judges import Judges

    return [field.name for field in fields(Judges)]


def named_judges(detector: str | None, given: Sequence[str]) -> dict[str, str]:
    """Role -> name, from `--detector NAME` and `--judges ROLE=NAME ...`.

    Raises:
        ValueError: no `ROLE=NAME`, an unknown role, or one given twice.
    """
    named = {"detect": detector} if detector else {}
    for word in given:
        role, equals, name = word.partition("=")
        if not equals or not name:
            raise ValueError(f"--judges {word} must be like detect=owlv2")
        if role not in roles():
            raise unknown("role in --judges:", role, roles())
        if role in named:
            raise ValueError(f"the judge for {role} is given twice: {named[role]} and {name}")
        named[role] = name
    return named


def read_options(text: str | None) -> dict[str, dict[str, Any]]:
    """Options by role, from `--judge_kwargs`.

    Raises:
        ValueError: not a mapping of roles to mappings.
    """
    import yaml

    try:
        given = yaml.safe_load(text or "{}")
    except yaml.YAMLError as error:
        raise ValueError(f"--judge_kwargs {text!r} is not YAML: {error}") from error
    if not isinstance(given, dict) or not all(isinstance(value, dict) for value in given.values()):
        raise ValueError(f"--judge_kwargs {text!r} must be like '{{detect: {{model: FOLDER, dtype: float16}}}}'")
    return given


def needed_roles(suites: Iterable[Suite], named: Mapping[str, str]) -> dict[str, str]:
    """Role -> name of every judge that the suites use.

    Args:
        suites: the suites.
        named: what the options say; `none` leaves an optional judge out.

    Raises:
        ValueError: a judge is named that no suite uses.
    """
    suites = list(suites)
    uses = list(dict.fromkeys(role for suite in suites for role in (*suite.needs, *suite.optional)))
    unused = [role for role in named if role not in uses]
    if unused:
        names = ", ".join(suite.name for suite in suites)
        raise ValueError(f"{names} has no use for a judge of {', '.join(unused)}; it uses {', '.join(uses)}")
    wanted = {role: named.get(role) or _usual(role, suites, named) for role in uses}
    return {role: name for role, name in wanted.items() if name != NONE}


def _usual(role: str, suites: Sequence[Suite], named: Mapping[str, str]) -> str:
    """The judge of a role that no option names."""
    if role == "parse" or (role == "color" and named.get("detect") == "shapes"):
        return NONE  # suites bring a small parser; the embedded world's detector names colours itself
    if role == "detect":
        return COCO if any("mask2former" in suite.published.get(role, "") for suite in suites) else OPEN_VOCABULARY
    return DEFAULTS[role]


def make_judges(
    wanted: Mapping[str, str], options: Mapping[str, Mapping[str, Any]], device: str | None, cache: Path | None
) -> Judges:
    """The judges, loaded.

    Args:
        wanted: role -> name; see `diffalign.rewards.detectors.judge`.
        options: role -> options of its judge.
        device: where models run that are not given a device of their own.
        cache: file that answers are kept in, None for nowhere.

    Raises:
        ValueError: unknown names, roles or options.
        MissingWeights: files of a model are not to be had.
    """
    from diffalign.evaluation.judges import Judges
    from diffalign.rewards.detectors import cached, judge

    for role in options:
        if role not in wanted:
            raise unknown("role in --judge_kwargs:", role, wanted)
    made: dict[str, Callable[..., Any]] = {}
    for role, name in wanted.items():
        one = judge(role, name, **{"device": device, **options.get(role, {})})
        made[role] = one if cache is None else cached(one, role, cache)
    return Judges(**made)
