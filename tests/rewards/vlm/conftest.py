"""Tiny random vision-language models of the true architectures, saved as they are published; a small chat server."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

GOOD = {"choices": [{"message": {"role": "assistant", "content": "7"}}]}
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
SPECIALS += ["<|video_pad|>", "<image>"]
WORDS = 'Yes No yes no 0 1 2 3 4 5 Does this figure show "a red cube"? Please answer yes or no. user assistant'
QWEN_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}{% if c['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ c['text'] }}{% endif %}{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAVA_TEMPLATE = (
    "{% for m in messages %}USER: {% for c in m['content'] %}{% if c['type'] == 'image' %}<image>\n{% else %}"
    "{{ c['text'] }}{% endif %}{% endfor %}{% endfor %}{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)


def tokenizer(image_token: str) -> Any:
    """Bytes, the words above, and the special tokens of both families."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator([WORDS] * 3, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet))
    raw.add_special_tokens([AddedToken(token, special=True) for token in SPECIALS])
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens={"image_token": image_token, "video_token": "<|video_pad|>"},
    )


def qwen_model(words: Any) -> Any:
    """Qwen2-VL with two layers of width 16."""
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    ids = {name: words.convert_tokens_to_ids(f"<|{name}|>") for name in ("vision_start", "vision_end", "image_pad")}
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": len(words), "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 512,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]},
            "pad_token_id": words.pad_token_id,
        },
        vision_config={"depth": 2, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "mlp_ratio": 2},
        image_token_id=ids["image_pad"],
        video_token_id=words.convert_tokens_to_ids("<|video_pad|>"),
        vision_start_token_id=ids["vision_start"],
        vision_end_token_id=ids["vision_end"],
        tie_word_embeddings=False,
    )  # fmt: skip
    return Qwen2VLForConditionalGeneration(config)


def sharpen(model: Any) -> Any:
    """Weights large enough that logits differ and gradients reach the image."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.copy_(torch.randn(weight.shape, generator=generator) / weight[0].numel() ** 0.5)
            elif "norm" not in name and "ln_q" not in name:
                weight.copy_(0.1 * torch.randn(weight.shape, generator=generator))
    return model.eval()


def qwen_processor(words: Any) -> Any:
    from transformers import Qwen2VLImageProcessor, Qwen2VLProcessor, Qwen2VLVideoProcessor

    pixels = {"min_pixels": 28 * 28, "max_pixels": 56 * 56}
    return Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(**pixels),
        tokenizer=words,
        video_processor=Qwen2VLVideoProcessor(**pixels),
        chat_template=QWEN_TEMPLATE,
    )


@pytest.fixture(scope="session")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny Qwen2-VL in the published format."""
    folder = tmp_path_factory.mktemp("models") / "tiny-qwen2-vl"
    words = tokenizer("<|image_pad|>")
    sharpen(qwen_model(words)).save_pretrained(folder)
    qwen_processor(words).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny LLaVA in the published format."""
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    folder = tmp_path_factory.mktemp("models") / "tiny-llava"
    words = tokenizer("<image>")
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=28,
            patch_size=14, projection_dim=16,
        ),
        text_config=LlamaConfig(
            vocab_size=len(words), hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
            max_position_embeddings=512, pad_token_id=words.pad_token_id,
        ),
        image_token_id=words.convert_tokens_to_ids("<image>"),
        image_seq_length=4,
    )  # fmt: skip
    sharpen(LlavaForConditionalGeneration(config)).save_pretrained(folder)
    LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}),
        tokenizer=words,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA_TEMPLATE,
        image_token="<image>",
    ).save_pretrained(folder)
    return folder


class Handler(BaseHTTPRequestHandler):
    """Plays the next piece of its server's script, and notes what was asked."""

    server: Any

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, dict(self.headers), body, time.monotonic()))
        script = self.server.script
        piece = script.pop(0) if len(script) > 1 else script[0]
        if isinstance(piece, dict):
            self.reply(**piece)
        else:
            piece(self)

    def reply(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        """A content that is a function is made from the request."""
        content = content(self.server.asked[-1][2]) if callable(content) else content
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Silent."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A server whose `script` the test writes; its address and a key stand in the environment."""
    made: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.daemon_threads = True
    made.script, made.asked = [{"content": GOOD}], []
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    monkeypatch.setenv("DIFFALIGN_VLM_URL", f"http://127.0.0.1:{made.server_port}/v1/")
    monkeypatch.setenv("DIFFALIGN_VLM_KEY", "sesame")
    yield made
    made.shutdown()
    made.server_close()
