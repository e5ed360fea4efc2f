"""The example of docs/rewards/write_your_own.md is a reward that keeps the contract, under the name given there."""

from __future__ import annotations

import re
from pathlib import Path

from diffalign.rewards import check_contract, get

PAGE = Path(__file__).resolve().parents[2] / "docs" / "rewards" / "write_your_own.md"


def test_the_example_works_as_it_stands(tmp_path, monkeypatch, images):
    text = PAGE.read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    name = code.splitlines()[0].removeprefix("# ")
    (tmp_path / name).write_text(code)
    monkeypatch.chdir(tmp_path)
    spec = f"{name}:warmth"
    assert f"check {spec}" in text
    scores = check_contract(get(spec, strength=2.0), images, ["a"] * 4, [{}] * 4)
    assert (scores - 2 * (images[:, 0] - images[:, 2]).mean((1, 2))).abs().max() < 1e-6
    assert len(text.splitlines()) < 45, "one screen"
