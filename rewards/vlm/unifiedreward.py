"""UnifiedReward (arXiv 2503.05236) behind an OpenAI-compatible server: a grade, or a verdict on two images.

The questions are ours; the model was trained on its authors' wording, which is in CodeGoat24/UnifiedReward and can
be given as `template`. The score is read after "Final Score:", as in the authors' code.
"""

from __future__ import annotations

from typing import Any

from diffalign.rewards.pairs import PairwiseReward
from diffalign.rewards.vlm.chat import URL_ENV
from diffalign.rewards.vlm.parsers import choice, number
from diffalign.rewards.vlm.remote import RemoteJudge, RemoteVLM

MODEL = "UnifiedReward-7b-v1.5"
SCORE_QUESTION = (
    "Judge this image, which was generated from a caption, in two respects. 1. Alignment: are the objects, their "
    "relations and their attributes those of the caption? 2. Quality: is it clear, detailed, true in colour and "
    'pleasing? Give one number from 1 to 5 after "Final Score:".\nText Caption: [{prompt}]'
)
PAIR_QUESTION = (
    "Two images were generated from one caption. Judge which of them is better in alignment with the caption and in "
    'quality. End with "Image 1 is better than Image 2", "Image 2 is better than Image 1" or "They are equal".\n'
    "Text Caption: [{prompt}]"
)
VERDICTS = {r"image 1 is better": 1.0, r"image 2 is better": 0.0, r"they are equal": 0.5}
LOWEST, HIGHEST = 1.0, 5.0


class UnifiedReward(RemoteVLM):
    """A grade from 1 to 5 of one image; an answer without one is NaN."""

    def __init__(
        self, model: str = MODEL, *, template: str = SCORE_QUESTION, max_tokens: int = 1024, **client: Any
    ) -> None:
        """Names the model.

        Args:
            model: Its name on the server.
            template: Question with `{prompt}` whose answer has a number after "Final Score:".
            max_tokens: Length of the answer.
            **client: See `diffalign.rewards.vlm.remote.ChatClient`.

        Raises:
            ValueError: If an argument is unknown, is a secret, or is outside its range.
        """
        parser = number(r"final score:\W*([1-5](?:\.\d+)?)(?![\d.]*\d)", LOWEST, HIGHEST, max_tokens)
        name = f"unifiedreward_{model.rsplit('/', 1)[-1].lower()}"
        super().__init__(model, template=template, parser=parser, name=name, **client)


class UnifiedRewardPairs(PairwiseReward):
    """Win rate of an image in its group, each pair judged in both orders; a pair without a verdict leaves the mean."""

    environment = (URL_ENV,)

    def __init__(
        self, model: str = MODEL, *, template: str = PAIR_QUESTION, max_tokens: int = 1024, **client: Any
    ) -> None:
        """Names the model; arguments and errors as for `UnifiedReward`."""
        name = f"unifiedreward_pairs_{model.rsplit('/', 1)[-1].lower()}"
        self.judge = RemoteJudge(model, template=template, parser=choice(VERDICTS, max_tokens), name=name, **client)
        super().__init__(self.judge)
