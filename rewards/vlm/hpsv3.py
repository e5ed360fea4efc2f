"""HPSv3 (arXiv 2508.03789): Qwen2-VL-7B with a small head on a special token, trained on human preferences.

The head gives mean and log-deviation of the preference; the score is the mean. The model was trained under one fixed
instruction, which is the authors' text: it is parsed, not run, from their source file (or read from a text file).

Positions are those of the released forward (`Qwen2VLRewardModelBT.forward` of MizzenAI/HPSv3): it passes embeddings to
the decoder without token ids and image grid, so every token, image tokens included, has its index in the sequence as
position on all three axes. Qwen2-VL's own forward gives image tokens grid positions instead, and other scores.
"""

from __future__ import annotations

import ast
from importlib import metadata
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from diffalign.rewards import weights
from diffalign.rewards.vision import VisionReward
from diffalign.rewards.vlm.local import LocalVLM
from diffalign.rewards.vlm.logit import fill

CHECKPOINT = ("MizzenAI/HPSv3", "HPSv3.safetensors")
BACKBONE = "Qwen/Qwen2-VL-7B-Instruct"
INSTRUCTION = ("github:MizzenAI/HPSv3", "hpsv3/dataset/data_collator_qwen.py")
PARTS = ("INSTRUCTION", "prompt_with_special_token")
FIELD = "{text_prompt}"
REWARD_TOKEN = "<|Reward|>"
PIXELS = 256 * 28 * 28
"""Every image is scaled to about this area, in sides of multiples of 28."""
HEAD = "rm_head."


def reward_head(width: int) -> nn.Sequential:
    """The head `width -> 1024 -> 16 -> (mean, log-deviation)`, with the published names 0, 3 and 5."""
    return nn.Sequential(
        nn.Linear(width, 1024), nn.ReLU(), nn.Dropout(0.05), nn.Linear(1024, 16), nn.ReLU(), nn.Linear(16, 2)
    )


def read_instruction(path: Path) -> str:
    """The question, with `{text_prompt}` and the reward token, from the authors' source file or a text file.

    A Python file is parsed, not run: the strings `INSTRUCTION` and `prompt_with_special_token` are joined.

    Raises:
        ValueError: If the strings, the field or the token are missing.
    """
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        found = {
            target.id: statement.value.value
            for statement in ast.parse(text).body
            if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant)
            for target in statement.targets
            if isinstance(target, ast.Name) and target.id in PARTS and isinstance(statement.value.value, str)
        }
        if set(found) != set(PARTS):
            raise ValueError(f"{path} does not define the strings {' and '.join(PARTS)}; is it another file?")
        text = "".join(str(found[part]) for part in PARTS)
    if FIELD not in text or text.count(REWARD_TOKEN) != 1:
        raise ValueError(f"{path}: an instruction of HPSv3 holds {FIELD} and {REWARD_TOKEN} once")
    return text


def find_instruction(local: str | Path | None = None) -> Path:
    """The authors' file: a local copy, or the one of an installed `hpsv3` (which is not imported).

    Raises:
        MissingWeights: If it is in neither place.
    """
    if local is None:
        try:
            installed = metadata.distribution("hpsv3").locate_file(INSTRUCTION[1])
        except metadata.PackageNotFoundError:
            installed = None
        local = str(installed) if installed is not None and Path(str(installed)).is_file() else None
    return weights.locate(*INSTRUCTION, local, argument="instruction")


class _Ranker(nn.Module):
    """Backbone and head as one module, so that they move together."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head


class _FromTensors:
    """`from_pretrained` of a checkpoint that is already read, under either naming of Qwen2-VL's tensors."""

    def __init__(self, config: Any, state: dict[str, Tensor]) -> None:
        self._config, self._state = config, state

    def from_pretrained(self, source: str, **options: Any) -> Any:
        """The model; `source` is for messages only."""
        from transformers import Qwen2VLForConditionalGeneration

        return Qwen2VLForConditionalGeneration.from_pretrained(
            None, config=self._config, state_dict=self._state, **options
        )


def _load(path: Path, backbone: str, dtype: torch.dtype) -> Any:
    """Backbone and head from the checkpoint; configuration from the backbone's folder."""
    from transformers import AutoConfig

    state = weights.read(path)
    head = {name.removeprefix(HEAD): state.pop(name) for name in list(state) if name.startswith(HEAD)}
    config = weights.from_pretrained(AutoConfig, backbone, "config.json", argument="backbone")
    vocabulary = [len(value) for name, value in state.items() if name.endswith("embed_tokens.weight")]
    if vocabulary:
        config.text_config.vocab_size = vocabulary[0]  # the reward token has been added to it
    ranker = reward_head(config.text_config.hidden_size)
    weights.load_strict(ranker, head, f"{path} ({HEAD}*)")
    return _Ranker(weights.load_model(_FromTensors(config, state), str(path), argument="path", dtype=dtype), ranker)


class HPSv3Reward(VisionReward):
    """Human preference for an image given its prompt, the mean of HPSv3's prediction; about 0 to 15."""

    name = "hpsv3"
    licence = "MIT (Qwen2-VL-7B: Apache-2.0)"
    weights = (CHECKPOINT, (BACKBONE, "config.json"), (BACKBONE, "preprocessor_config.json"), INSTRUCTION)

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        backbone: str = BACKBONE,
        instruction: str | Path | None = None,
        dtype: str = "bfloat16",
        batch_size: int = 4,
        checkpoint: bool = False,
    ) -> None:
        """Loads backbone, head and instruction.

        Args:
            path: Local copy of the checkpoint, or its folder.
            backbone: Hub id or folder with the configuration, tokenizer and processor of Qwen2-VL-7B-Instruct; its
                weights are not read.
            instruction: The authors' source file (or a checkout of their repository), or a text file.
            dtype: Of the backbone: bfloat16, float16 or float32. The head is float32.
            batch_size: See `VisionReward`.
            checkpoint: See `VisionReward`.

        Raises:
            MissingWeights: If files cannot be found.
            ValueError: If a checkpoint or an instruction is another one's, or the dtype is unknown.
        """
        from transformers import AddedToken, AutoProcessor

        if dtype not in ("bfloat16", "float16", "float32"):
            raise ValueError(f"dtype {dtype!r} is unknown; valid: bfloat16, float16, float32")
        self._question = read_instruction(find_instruction(instruction))
        processor = weights.from_pretrained(AutoProcessor, backbone, "preprocessor_config.json", argument="backbone")
        processor.tokenizer.add_tokens([AddedToken(REWARD_TOKEN, special=True)])
        processor.image_processor.size = {"shortest_edge": PIXELS, "longest_edge": PIXELS}
        ranker = _load(weights.locate(*CHECKPOINT, path, argument="path"), backbone, getattr(torch, dtype))
        self._ranker = ranker
        self._vlm = LocalVLM(ranker.backbone, processor)
        self._token = int(processor.tokenizer.convert_tokens_to_ids(REWARD_TOKEN))
        rows = len(self._ranker.backbone.get_input_embeddings().weight)
        if self._token >= rows:
            raise ValueError(
                f"the tokenizer of {backbone} puts {REWARD_TOKEN} at {self._token}, beyond the {rows} rows of the "
                "checkpoint; use the backbone that it was trained on"
            )
        super().__init__(ranker, batch_size=batch_size, checkpoint=checkpoint)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Moves the model; the head stays in float32 at least."""
        super().to(device, dtype)
        self._ranker.head.to(dtype=torch.promote_types(self._place.dtype, torch.float32))
        return self

    def score_batch(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores `(n,)` of images `(n, 3, H, W)` on the model's device."""
        questions = [fill(self._question, text_prompt=self._vlm.plain(prompt)) for prompt in prompts]
        inputs = self._vlm.inputs([images], [self._vlm.question(question) for question in questions])
        ids = inputs["input_ids"]
        positions = torch.arange(ids.shape[1], device=ids.device).expand(3, *ids.shape)
        hidden = self._ranker.backbone.model(**inputs, position_ids=positions, use_cache=False).last_hidden_state
        rows = torch.arange(len(hidden), device=hidden.device)
        at_token = hidden[rows, (ids == self._token).int().argmax(1)]
        means: Tensor = self._ranker.head(at_token.to(self._ranker.head[0].weight.dtype))[:, 0]
        return means
