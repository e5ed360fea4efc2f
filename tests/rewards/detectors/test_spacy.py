"""The parser by spaCy: against the real library where its English model is installed, else on a small pipeline."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from diffalign.evaluation.judges import Word
from diffalign.rewards.detectors import judge


class Document(list):
    """What a pipeline makes of a text: tokens, and chunks of the words that are not verbs."""

    def __init__(self, text: str) -> None:
        kinds = {"sits": "VERB", "on": "ADP"}
        super().__init__(SimpleNamespace(text=word, pos_=kinds.get(word, "NOUN")) for word in text.split())
        self.noun_chunks = [token for token in self if token.pos_ == "NOUN"]


class Pipeline:
    meta = {"lang": "en", "name": "core_web_sm", "version": "0.0"}

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, text: str) -> Document:
        self.calls += 1
        return Document(text)


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    made, module = Pipeline(), ModuleType("spacy")

    def load(name: str, exclude: Any) -> Pipeline:
        if name != "en_core_web_sm":
            raise OSError(f"[E050] Can't find model '{name}'")
        return made

    module.load = load  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "spacy", module)
    return made


def test_words_and_chunks_come_from_the_pipeline_once_a_prompt(pipeline: Pipeline) -> None:
    parser = judge("parse", "spacy")
    for _ in range(3):
        parsed = parser("cat sits on mat")
    assert parsed.words == (Word("cat", "NOUN"), Word("sits", "VERB"), Word("on", "ADP"), Word("mat", "NOUN"))
    assert parsed.chunks == ("cat", "mat") and pipeline.calls == 1
    assert parser.name == "spacy" and parser.describe()["model"] == "en_core_web_sm"


def test_a_model_or_library_that_is_not_there_is_named(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="has no model 'en_core_web_lg'; `python -m spacy download en_core_web_lg`"):
        judge("parse", "spacy", model="en_core_web_lg")
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(ImportError, match="pip install spacy"):
        judge("parse", "spacy")


def test_the_real_model_reads_the_fixed_prompt_form() -> None:
    pytest.importorskip("spacy", reason="spaCy is not installed")
    pytest.importorskip("en_core_web_sm", reason="spaCy's model en_core_web_sm is not installed")
    parsed = judge("parse", "spacy")("a horse on the left of a car")
    assert parsed.chunks == ("a horse", "the left", "a car")
    assert [w.text for w in parsed.words if w.kind == "NOUN"] == ["horse", "left", "car"]
