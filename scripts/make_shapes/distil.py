"""Makes shapes-flow: ``python scripts/make_shapes/distil.py --teacher FOLDER --vae VAE --out FOLDER``.

The teacher is shapes-flow-guided, or what flow.py made. The student learns to say in one pass what the teacher says
with classifier-free guidance at --scale (Meng et al. 2023, arXiv 2210.03142, the first stage, at one scale), on noised
training scenes. Text encoders stay as they are; so does the answer to an empty prompt. Times are logit-normal with mean
--tilt. Log and snapshots as in flow.py.
"""

from __future__ import annotations

import copy
from pathlib import Path

import text
import torch
from common import Log, fit, latent_pool, load_vae, parse, snapshots
from flow import Flow, generate, noised, pipeline, restore
from torch import Tensor


@torch.no_grad()
def embedded(flow: Flow, captions: list[str]) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings (U, 28, 64), (U, 64) of the distinct captions, and the (N,) row of each; the last row is empty."""
    distinct = sorted(set(captions))
    rows = {caption: i for i, caption in enumerate(distinct)}
    clip_ids = text.ids(text.tokenizer(text.CLIP_LENGTH, begin=True), [*distinct, ""], text.CLIP_LENGTH)
    t5_ids = text.ids(text.tokenizer(text.T5_LENGTH, begin=False), [*distinct, ""], text.T5_LENGTH)
    parts = [flow.encode(a, b) for a, b in zip(clip_ids.split(256), t5_ids.split(256), strict=True)]
    tokens, pooled = (torch.cat(part) for part in zip(*parts, strict=True))
    return tokens, pooled, torch.tensor([rows[caption] for caption in captions])


def main() -> None:
    """Command line."""
    parser = parse(__doc__, steps=500, rate=1e-3)
    parser.add_argument("--teacher", type=Path, required=True, help="saved pipeline")
    parser.add_argument("--scale", type=float, default=4.0, help="guidance scale that is distilled")
    parser.add_argument("--tilt", type=float, default=0.7, help="mean of the logit-normal times")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    log = Log(args.out / "log.jsonl")
    vae = load_vae(args.vae)
    latents, captions = latent_pool(vae, args.pool, args.seed, args.cache)
    flow = Flow()
    restore(flow, args.teacher)
    for encoder in (flow.text_1, flow.text_2, flow.text_3):
        encoder.requires_grad_(False)
    tokens, pooled, rows = embedded(flow, captions)
    teacher = copy.deepcopy(flow.transformer).requires_grad_(False)
    student = torch.compile(flow.transformer) if args.compile else flow.transformer
    empty = len(tokens) - 1

    def loss_of(pick: Tensor) -> Tensor:
        _, t, x = noised(latents[pick], args.tilt)
        words = torch.where(torch.rand(len(pick)) < 0.1, empty, rows[pick])
        with torch.no_grad():
            both = torch.cat([words, torch.full_like(words, empty)])
            said = teacher(torch.cat([x, x]), tokens[both], pooled[both], torch.cat([t, t]) * 1000, return_dict=False)
            conditional, unconditional = said[0].chunk(2)
            target = torch.lerp(unconditional, conditional, args.scale)
        v = student(x, tokens[words], pooled[words], t * 1000, return_dict=False)[0]
        return (v - target).square().mean()

    steps = fit(flow, latents, args, loss_of, log, every=args.stop or args.steps)
    snapshots(steps, lambda average: pipeline(average, vae), generate, log, scales=(1.0, 2.0))


if __name__ == "__main__":
    main()
