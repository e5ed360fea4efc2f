"""Products of the gradients of tasks: on gradients whose signal is known, and on a trainer."""

from __future__ import annotations

import pytest
import torch

from benchmarks.alignment import task_transfer as tool


def drawn(direction: list[float], noise: float, seed: int, count: int = 400, dims: int = 50) -> torch.Tensor:
    """Gradients with a mean in the first axes and a known length of noise."""
    mean = torch.zeros(dims)
    mean[: len(direction)] = torch.tensor(direction)
    generator = torch.Generator().manual_seed(seed)
    return mean + noise * torch.randn(count, dims, generator=generator) / dims**0.5


def test_products_and_noises_are_found() -> None:
    stacks = [drawn([1.0, 0.0], 2.0, 0), drawn([-0.5, 0.5], 1.0, 1), drawn([0.0, 0.0, 3.0], 4.0, 2)]
    signal, noise = tool.moments(stacks)
    wanted = torch.tensor([[1.0, -0.5, 0.0], [-0.5, 0.5, 0.0], [0.0, 0.0, 9.0]])
    assert torch.allclose(signal, wanted, atol=0.1)
    assert torch.allclose(noise, torch.tensor([2.0, 1.0, 4.0]), rtol=0.05)


def test_a_table_of_a_trainer_is_printed(capsys, monkeypatch) -> None:
    monkeypatch.setattr(tool, "TAGS", ("single_object", "counting"))
    small = "--num_inference_steps 3 --prompts_per_rollout 2 --num_generations 4 --per_device_train_batch_size 8"
    plan = "--prefix_branches 4 --sde_window_range [0,2] --reward_funcs jpeg"
    words = f"task_transfer.py --config shapes-flow/quickstart --rollouts 4 {small} {plan}"
    monkeypatch.setattr("sys.argv", words.split())
    tool.main()
    lines = capsys.readouterr().out.splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("task"))
    assert lines[head].split()[1:] == ["train/single_o", "train/counting", "heldo/single_o", "heldo/counting", "noise"]
    rows = [line.split() for line in lines[head + 1 : head + 3]]
    assert [row[0] for row in rows] == ["single_object", "counting"]
    assert all(len(row) == 6 and float(row[-1]) > 0 for row in rows)
    assert float(rows[0][2]) == float(rows[1][1])  # a product does not know which came first


def test_one_rollout_is_refused(monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", "task_transfer.py --config shapes-flow/quickstart --rollouts 1".split())
    with pytest.raises(SystemExit):
        tool.main()
    assert "at least 2" in capsys.readouterr().err
