"""Trains shapes-clip: ``python scripts/make_shapes/clip.py --out FOLDER [--stop 700]``.

A CLIP model of open_clip: CLIP's ResNet, narrow and shallow, on pictures enlarged to 64x64, a text transformer on
words, one embedding of 64. The loss is CLIP's (Radford et al. 2021, arXiv 2103.00020), in both directions, with more
captions than images: those of the batch and some hundred others of the split. Each image is told from all of them, and
once more from those alone that differ from its own in one word. Captions that say the same count as one. AdamW, EMA.
Held-out combinations are in no image and no caption. The shipped model is ``--stop 700``: later ones count worse where
the combination is held out, and so do 500 steps with ``--order 1 --rate 2e-3``, which begin to tell whose a colour is.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import open_clip
import text
import torch
from clip_score import heldout_preferences
from common import Log, fit
from pool import scene_pool
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from diffalign.rewards.clip_open_clip import preprocess_from
from diffalign.shapes import prompts
from diffalign.shapes.swaps import KINDS, meaning

NEVER = -1e4
FILE = "open_clip_model.safetensors"


def config(width: int = 12, text_width: int = 64, text_layers: int = 2) -> dict[str, dict]:
    """What open_clip_config.json holds; the name of the tokenizer means the one in the folder itself."""
    vision = {"image_size": 64, "width": width, "layers": [1, 1, 1, 1]}
    words = {"context_length": text.CLIP_LENGTH, "vocab_size": len(text.words()), "hf_tokenizer_name": "shapes-clip"}
    # argmax would pool at the largest id of a text, which here is a word and not its end.
    shape = {"width": text_width, "heads": text_width // 16, "layers": text_layers, "pool_type": "eos"}
    colour = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    towers = {"vision_cfg": vision, "text_cfg": {**words, **shape, "eos_id": text.EOS}}
    return {"model_cfg": {"embed_dim": 64, **towers}, "preprocess_cfg": colour}


def save(model: nn.Module, settings: dict[str, dict], folder: Path) -> None:
    """A folder that open_clip loads as ``local-dir:FOLDER``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    text.tokenizer(text.CLIP_LENGTH, begin=True).save_pretrained(folder)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / FILE)


def caption_tables(lines: list[dict]) -> tuple[Tensor, Tensor, Tensor]:
    """Which captions say the same, differ in one word, or in the order of their words: three (C, C) masks."""
    place = {line["prompt"]: i for i, line in enumerate(lines)}
    keys = [meaning(line) for line in lines]
    numbers = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    key = torch.tensor([numbers[k] for k in keys])
    near = torch.zeros(len(lines), len(lines), dtype=torch.bool)
    for i, line in enumerate(lines):
        swapped = [s["prompt"] for kind in KINDS.values() for s in kind(line)]
        near[i, [place[s] for s in swapped if s in place]] = True
    same = key[:, None] == key
    bags = [sorted(line["prompt"].split()) for line in lines]
    return same, near, torch.tensor([[a == b for b in bags] for a in bags]) & ~same


def contrast(logits: Tensor, same: Tensor, others: Tensor | None = None) -> Tensor:
    """Mean over rows of -log p(any of ``same``) under a softmax over ``same`` and ``others`` (all); (R, C) each."""
    among = logits if others is None else logits.masked_fill(~(same | others), NEVER)
    return (among.logsumexp(1) - logits.masked_fill(~same, NEVER).logsumexp(1)).mean()


def load_pool(count: int, seed: int, cache: Path | None) -> tuple[Tensor, list[str]]:
    """Images as bytes and captions of training scenes, from ``cache`` if it exists."""
    if cache and cache.exists():
        stored = torch.load(cache, weights_only=True)
        return stored["images"], stored["captions"]
    images, captions = scene_pool(count, seed)
    if cache:
        torch.save({"images": images, "captions": captions}, cache)
    return images, captions


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--stop", type=int, help="end early, on the schedule of --steps")
    parser.add_argument("--every", type=int, default=100, help="steps between snapshots")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--pool", type=int, default=60000)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--noise", type=float, default=0.03, help="standard deviation of noise on the pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--width", type=int, default=12)
    parser.add_argument("--others", type=int, default=400, help="captions of the split beside those of the batch")
    parser.add_argument("--order", type=float, default=0.0, help="weight of captions of the same words")
    parser.add_argument("--init", type=Path, help="folder of a model to train on")
    parser.add_argument("--cache", type=Path, help="file that keeps the rendered scenes between runs")
    return parser.parse_args()


def main() -> None:
    """Trains, with a snapshot and its held-out preferences every few hundred steps."""
    args = arguments()
    torch.manual_seed(args.seed)
    log = Log(args.out / "log.jsonl")
    images, captions = load_pool(args.pool, args.seed, args.cache)
    lines = prompts("train")
    place = {line["prompt"]: i for i, line in enumerate(lines)}
    caption = torch.tensor([place[c] for c in captions])
    ids = text.ids(text.tokenizer(text.CLIP_LENGTH, begin=True), [line["prompt"] for line in lines], text.CLIP_LENGTH)
    same, near, order = caption_tables(lines)
    settings = config(args.width)
    model = open_clip.CLIP(**settings["model_cfg"]).to(memory_format=torch.channels_last)
    if args.init:
        model.load_state_dict(load_file(args.init / FILE))
    transform = preprocess_from({"size": 64, "fill_color": 0, **settings["preprocess_cfg"]}, args.out)
    log(event="start", parameters=sum(p.numel() for p in model.parameters()), captions=len(lines))

    def loss_of(pick: Tensor) -> Tensor:
        pixels = images[pick].float() / 255
        pixels = transform((pixels + args.noise * torch.randn_like(pixels)).clamp(0, 1))
        columns = torch.cat([caption[pick], torch.randperm(len(lines))[: args.others]]).unique()
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            seen = model.encode_image(pixels.to(memory_format=torch.channels_last))
            said = model.encode_text(ids[columns])
        seen, said = F.normalize(seen.float(), dim=-1), F.normalize(said.float(), dim=-1)
        scale = model.logit_scale.exp().clamp(max=100)
        logits = scale * seen @ said.T
        mine, hard, turned = (mask[caption[pick]][:, columns] for mask in (same, near, order))
        described = mine.any(0)
        both = contrast(logits, mine) + contrast(logits[:, described].T, mine[:, described].T)
        # Captions of the same words have nearly one embedding until the pictures part them, and the pictures do not
        # while the captions have: both are pushed apart on their own account.
        apart = contrast(scale * said @ said.T, same[columns][:, columns], order[columns][:, columns])
        return both + contrast(logits, mine, hard) + args.order * (contrast(logits, mine, turned) + apart)

    for step, average in fit(model, images, args, loss_of, log, every=args.every):
        save(average, settings, args.out / f"step-{step}")
        log(step=step, **heldout_preferences(args.out / f"step-{step}"))


if __name__ == "__main__":
    main()
