"""Word-level tokenizers and tiny text encoders for the shapes checkpoints."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from diffalign.evaluation.geneval_prompts import NUMBER_WORDS, RELATIONS, plural
from diffalign.shapes import CLASSES, COLOURS
from diffalign.shapes.vocabulary import COUNTS

# CLIP's text model pools at the largest token id when eos is 2, so eos is 1.
PAD, EOS, BOS, UNK = range(4)
CLIP_LENGTH = 12
T5_LENGTH = 16


def words() -> list[str]:
    """Every word of the grammar, special tokens first."""
    numbers = [NUMBER_WORDS[count] for count in COUNTS]
    relations = sorted({word for relation in RELATIONS for word in relation.split()} - {"of"})
    names = [form for name in CLASSES for form in (name, plural(name))]
    return ["<pad>", "<eos>", "<bos>", "<unk>", "a", "an", "photo", "of", "and", *relations, *numbers, *COLOURS, *names]


def tokenizer(max_length: int, *, begin: bool) -> PreTrainedTokenizerFast:
    """A word-level tokenizer that ends every text with <eos> and, with ``begin``, starts it with <bos>."""
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words())}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [("<bos>", BOS), ("<eos>", EOS)]
    inner.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>" if begin else "$A <eos>", special_tokens=special if begin else special[1:]
    )
    names = {"bos_token": "<bos>"} if begin else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        model_max_length=max_length,
        **names,
    )


def _clip_config(width: int, layers: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(words()),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // 16),
        max_position_embeddings=CLIP_LENGTH,
        hidden_act="gelu",
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
    )


def clip(width: int, layers: int, *, projection: bool) -> CLIPTextModel | CLIPTextModelWithProjection:
    """A tiny CLIP text encoder."""
    config = _clip_config(width, layers)
    return CLIPTextModelWithProjection(config) if projection else CLIPTextModel(config)


def t5(width: int, layers: int) -> T5EncoderModel:
    """A tiny T5 encoder without dropout."""
    return T5EncoderModel(
        T5Config(
            vocab_size=len(words()),
            d_model=width,
            d_kv=16,
            d_ff=width,
            num_layers=layers,
            num_heads=2,
            dropout_rate=0.0,
            pad_token_id=PAD,
            eos_token_id=EOS,
            decoder_start_token_id=PAD,
        )
    )


def ids(tok: PreTrainedTokenizerFast, texts: list[str], length: int) -> torch.Tensor:
    """(N, length) token ids as the pipelines make them."""
    return tok(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids
