"""The example of docs/rewards/write_your_own.md keeps the contract and has the properties that it declares."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from diffalign.rewards import check_contract, get, score

PAGE = Path(__file__).resolve().parents[2] / "docs" / "rewards" / "write_your_own.md"


def test_the_example_works_as_it_stands(tmp_path, monkeypatch, images):
    text = PAGE.read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    name = code.splitlines()[0].removeprefix("# ")
    (tmp_path / name).write_text(code)
    monkeypatch.chdir(tmp_path)
    assert f"check {name}:grain" in text and f"--reward_funcs {name}:warmth" in text
    scores = check_contract(get(f"{name}:warmth", strength=2.0), images, ["a"] * 4, [{}] * 4)
    assert (scores - 2 * (images[:, 0] - images[:, 2]).mean((1, 2))).abs().max() < 1e-6
    grain = get(f"{name}:grain")
    assert grain.differentiable and grain.range == (-1.0, 0.0)
    flat, noisy = torch.full_like(images, 0.5), (images > 0.5).float()
    both = check_contract(grain, torch.cat([flat, noisy]), ["a"] * 8, [{}] * 8)
    assert both[:4].tolist() == [0] * 4 and both[4:].max() < -0.2, "less grain is better"
    leaf = images.clone().requires_grad_()
    before = score({"grain": grain}, leaf, ["a"] * 4, [{}] * 4, grad=True)["grain"]
    (gradient,) = torch.autograd.grad(before.sum(), leaf)
    after = score({"grain": grain}, (images + gradient).clamp(0, 1), ["a"] * 4, [{}] * 4)["grain"]
    assert (after > before).all(), "a step along the gradient takes grain away"
