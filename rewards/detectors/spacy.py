"""spaCy's English pipeline as the prompt parser of T2I-CompBench: word classes and noun chunks.

Needs `pip install spacy` and a model, `python -m spacy download en_core_web_sm`; the published scores were made with
this one.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from typing import Any

from diffalign.evaluation.judges import ParsedPrompt, PromptParser, Word

MODEL = "en_core_web_sm"


class SpacyParser:
    """Parses prompts with a loaded pipeline."""

    def __init__(self, pipeline: Any, model: str) -> None:
        """Keeps the pipeline and the last 4096 prompts."""
        self._pipeline = pipeline
        self.name = "spacy" if model == MODEL else f"spacy:{model}"
        self._parsed = lru_cache(4096)(self._parse)

    def describe(self) -> dict[str, Any]:
        """What identifies the parser in a result."""
        meta = self._pipeline.meta
        return {"name": self.name, "model": f"{meta['lang']}_{meta['name']}", "revision": meta["version"]}

    def __call__(self, prompt: str) -> ParsedPrompt:
        """Words and noun chunks of a prompt."""
        return self._parsed(prompt)

    def _parse(self, prompt: str) -> ParsedPrompt:
        document = self._pipeline(prompt)
        words = tuple(Word(token.text, token.pos_) for token in document)
        return ParsedPrompt(words, tuple(chunk.text for chunk in document.noun_chunks))


def parse(model: str = MODEL) -> PromptParser:
    """The parser.

    Args:
        model: name of an installed spaCy model, or its folder.

    Raises:
        ImportError: spaCy is not installed.
        ValueError: the model is not.
    """
    try:
        spacy = import_module("spacy")
    except ImportError as error:
        raise ImportError("the prompt parser `spacy` needs spaCy: pip install spacy") from error
    try:
        pipeline = spacy.load(model, exclude=["ner", "lemmatizer"])
    except OSError as error:
        raise ValueError(f"spaCy has no model {model!r}; `python -m spacy download {model}` fetches it") from error
    return SpacyParser(pipeline, model)
