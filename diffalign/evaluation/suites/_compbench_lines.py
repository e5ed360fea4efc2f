"""What each category of T2I-CompBench needs to know of a prompt: read from its words, or given as metadata.

Metadata replaces the parser's reading: `questions`; `first`, `second` and `relation`; `counts`; `kind`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from diffalign.evaluation import compbench_attributes as attributes
from diffalign.evaluation import compbench_complex
from diffalign.evaluation import compbench_prompts as prompts
from diffalign.evaluation.compbench_counts import Counted, read_counts
from diffalign.evaluation.judges import ParsedPrompt

LineReader = Callable[[str, ParsedPrompt, Mapping[str, Any], bool], dict[str, Any]]


def _attribute_line(prompt: str, parsed: ParsedPrompt, metadata: Mapping[str, Any], strict: bool) -> dict[str, Any]:
    asked = list(metadata.get("questions") or attributes.questions(parsed, strict=strict))
    if not asked:
        raise ValueError("the prompt has no noun chunk to ask for; give `questions` in the metadata")
    return {"questions": asked}


def _pair_line(
    relations: Sequence[str], prompt: str, parsed: ParsedPrompt, metadata: Mapping[str, Any], strict: bool
) -> dict[str, Any]:
    given = {key: metadata[key] for key in ("first", "second", "relation") if key in metadata}
    if given:
        missing = {"first", "second", "relation"} - set(given)
        if missing:
            raise ValueError(f"the metadata lacks {', '.join(sorted(missing))}; it has {sorted(given)}")
        first, second = (prompts.labels_of(given[key], strict=strict) for key in ("first", "second"))
        pair = prompts.Pair(first, second, given["relation"])
    else:
        pair = prompts.read_pair(prompt, parsed, relations, strict=strict)
    if pair.relation not in relations:
        raise ValueError(
            f"`relation` is {pair.relation!r}; the prompt or its metadata must have one of {list(relations)}"
        )
    return {"pair": pair}


def _count_line(prompt: str, parsed: ParsedPrompt, metadata: Mapping[str, Any], strict: bool) -> dict[str, Any]:
    given = metadata.get("counts")
    if given is None:
        return {"counts": read_counts(prompt, parsed, strict=strict)}
    if not isinstance(given, Mapping) or not all(isinstance(n, int) and n > 0 for n in given.values()) or not given:
        raise ValueError(f"`counts` is an object of class names and numbers above 0, got {given!r}")
    return {"counts": [Counted(name, number) for name, number in given.items()]}


def _text_line(prompt: str, parsed: ParsedPrompt, metadata: Mapping[str, Any], strict: bool) -> dict[str, Any]:
    return {"text": prompt}


def _complex_line(prompt: str, parsed: ParsedPrompt, metadata: Mapping[str, Any], strict: bool) -> dict[str, Any]:
    kind = metadata.get("kind") or compbench_complex.complex_kind(prompt)
    if kind not in ("spatial", "action", "both"):
        raise ValueError(f"`kind` is {kind!r}; valid: spatial, action, both")
    return {
        **_attribute_line(prompt, parsed, metadata, strict),
        "kind": kind,
        "pair": compbench_complex.read_complex_pair(prompt, parsed, strict=strict),
        "text": attributes.similarity_text(prompt, parsed, strict=strict),
    }


READERS: dict[str, LineReader] = {
    **dict.fromkeys(("color", "shape", "texture"), _attribute_line),
    "spatial": partial(_pair_line, prompts.FLAT_RELATIONS),
    "3d_spatial": partial(_pair_line, prompts.DEPTH_RELATIONS),
    "numeracy": _count_line,
    "non_spatial": _text_line,
    "complex": _complex_line,
}
