"""BLIP-VQA (arXiv 2201.12086) as T2I-CompBench asks it: P(yes) against P(no) as the first token of the answer.

The benchmark runs BLIP base (capfilt large) at 480 x 480 pixels; the published conversion holds a position table for
384, which is interpolated to 480 here. Its questions begin with [CLS], the model was trained on [ENC]: the first token
is replaced, as in the original. Training is the same, the rounding of the position table is not, so scores agree to
about the third digit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from diffalign.evaluation.judges import Answerer, YesProbability
from diffalign.rewards.detectors._frozen import FrozenJudge, FrozenModel, judge_label, load_processor, read_placement
from diffalign.rewards.detectors._grouping import regroup
from diffalign.rewards.detectors._yes_no import YesNoAnswers
from diffalign.rewards.functions.likelihood import yes_probability
from diffalign.rewards.images import Preprocess, squash_to_square

HUB = "Salesforce/blip-vqa-capfilt-large"
SIDE = 480
LONGEST = 35
"""Tokens of a question that are read."""
MOST_WORDS = 50
REMOVED = re.compile(r"[.!\"()*#:;~]")
ENC = "[ENC]"


class BlipVqa(FrozenJudge):
    """Images and questions to P(yes) / (P(yes) + P(no))."""

    def __init__(self, frozen: FrozenModel, tokenizer: Any, side: int) -> None:
        """Wraps a loaded model; see `yes`."""
        self._frozen, self._tokenizer = frozen, tokenizer
        self._preprocess = Preprocess(side, fit=squash_to_square)
        self._enc = _token(tokenizer, ENC)
        self._answers = [[_token(tokenizer, word)] for word in ("yes", "no")]
        self.name = judge_label("blip_vqa", frozen.source, HUB)

    def describe(self) -> dict[str, Any]:
        """What identifies the judge in a result."""
        return {"name": self.name, **self._frozen.describe(), "side": self._preprocess.size}

    @torch.no_grad()
    def __call__(self, images: Tensor, questions: Sequence[Sequence[str]]) -> list[list[float]]:
        """P(yes) of each question of images `(B, 3, H, W)`; see `diffalign.evaluation.judges.YesProbability`."""
        found: list[list[float]] = []
        for rows, batch in self._frozen.batches(images):
            found += self._batch(batch, questions[rows])
        return found

    def _batch(self, images: Tensor, questions: Sequence[Sequence[str]]) -> list[list[float]]:
        """The image tower sees each image once, then its questions follow; those of one length share a batch."""
        model = self._frozen.model
        pixels = self._preprocess(images).to(self._frozen.dtype)
        seen = model.vision_model(pixel_values=pixels, interpolate_pos_encoding=True).last_hidden_state
        asked = [(row, self._ids(text)) for row, texts in enumerate(questions) for text in texts]
        values = [0.0] * len(asked)
        for places in self._equal_lengths([len(ids) for _, ids in asked]):
            rows, ids = zip(*(asked[place] for place in places), strict=True)
            answers = self._ask(seen[list(rows)], torch.tensor(ids, device=seen.device))
            for place, value in zip(places, answers.tolist(), strict=True):
                values[place] = value
        return regroup(values, questions)

    def _ids(self, text: str) -> list[int]:
        """Token ids of a question."""
        ids: list[int] = self._tokenizer(clean_question(text), truncation=True, max_length=LONGEST)["input_ids"]
        return [self._enc, *ids[1:]]

    def _equal_lengths(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Places in batches of one length: nothing is padded, so that no answer depends on a mask."""
        for length in dict.fromkeys(lengths):
            places = [place for place, own in enumerate(lengths) if own == length]
            size = self._frozen.batch_size
            yield from (places[start : start + size] for start in range(0, len(places), size))

    def _ask(self, seen: Tensor, ids: Tensor) -> Tensor:
        """P(yes), `(n,)`, of questions `(n, L)` about image states `(n, P, D)`."""
        model = self._frozen.model
        read = model.text_encoder(input_ids=ids, encoder_hidden_states=seen).last_hidden_state
        start = torch.full((len(ids), 1), model.decoder_start_token_id, device=seen.device)
        logits = model.text_decoder(input_ids=start, encoder_hidden_states=read).logits[:, 0]
        return yes_probability(logits.float(), *self._answers)


def yes(model: str = HUB, *, side: int = SIDE, **placement: Any) -> YesProbability:
    """Loads the judge.

    Args:
        model: Hub id or local folder of a `BlipForQuestionAnswering`.
        side: Pixels of the square that the model sees; the benchmark's 480.
        **placement: `device`, `dtype`, `batch_size`, `revision`; see `Placement`.

    Raises:
        MissingWeights: If files are not to be had.
        ValueError: If an option is unknown or out of range, or the file is another model's.
    """
    from transformers import AutoTokenizer, BlipForQuestionAnswering

    place = read_placement("blip_vqa", placement)
    frozen = FrozenModel(BlipForQuestionAnswering, model, place)
    patch = int(frozen.model.config.vision_config.patch_size)
    if side < patch or side % patch:
        raise ValueError(f"side of blip_vqa is a multiple of the model's patches of {patch} pixels, got {side}")
    return BlipVqa(frozen, load_processor(AutoTokenizer, model, place, "tokenizer.json"), side)


def answer(model: str = HUB, *, side: int = SIDE, **placement: Any) -> Answerer:
    """Loads a judge that answers yes or no; arguments and errors as for `yes`."""
    return YesNoAnswers(yes(model, side=side, **placement))


def clean_question(text: str) -> str:
    """BLIP's own preparation: lower case, without punctuation but "?", at most 50 words."""
    return " ".join(REMOVED.sub("", text.lower()).rstrip(" ").split(" ")[:MOST_WORDS])


def _token(tokenizer: Any, word: str) -> int:
    """The id of a word that is one token.

    Raises:
        ValueError: If it is none.
    """
    number = tokenizer.convert_tokens_to_ids(word)
    if number is None or number == tokenizer.unk_token_id:
        raise ValueError(f"blip_vqa: the tokenizer has no token {word!r}; is it BLIP's (bert-base-uncased with [ENC])?")
    return int(number)
