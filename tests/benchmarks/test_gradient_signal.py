"""The share of signal in gradients: on gradients whose signal is known, and on a trainer."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from benchmarks.alignment import gradient_signal as tool
from diffalign.trainers import Trainer


def drawn(signal: float, count: int = 40, dims: int = 500, seed: int = 0) -> torch.Tensor:
    """Gradients with S^2 = signal and N^2 = 1."""
    generator = torch.Generator().manual_seed(seed)
    direction = torch.zeros(dims)
    direction[0] = signal**0.5
    return direction + torch.randn(count, dims, generator=generator) / dims**0.5


@pytest.mark.parametrize("signal", [0.0, 0.05, 0.5])
def test_a_known_ratio_is_found_within_its_error(signal) -> None:
    ratio, error = tool.signal_to_noise(drawn(signal))
    assert abs(ratio - signal) < 3 * error
    assert error < 0.1


def test_the_error_is_that_of_repeated_experiments() -> None:
    found = torch.tensor([tool.signal_to_noise(drawn(0.1, seed=s)) for s in range(60)])
    assert float(found[:, 1].mean()) == pytest.approx(float(found[:, 0].std()), rel=0.4)


def test_scale_and_rotation_change_nothing() -> None:
    gradients = drawn(0.2, dims=60)
    turn = torch.linalg.qr(torch.randn(60, 60, generator=torch.Generator().manual_seed(1)))[0]
    assert tool.signal_to_noise(7 * gradients @ turn)[0] == pytest.approx(tool.signal_to_noise(gradients)[0], rel=1e-3)


def test_a_run_prints_its_figure_and_leaves_the_weights(capsys, monkeypatch) -> None:
    small = "--num_inference_steps 3 --prompts_per_rollout 2 --num_generations 4 --per_device_train_batch_size 8"
    rest = f"{small} --reward_funcs jpeg --timestep_fraction 1"
    words = f"gradient_signal.py --config shapes-flow/diffusion_nft --rollouts 3 {rest}"
    monkeypatch.setattr("sys.argv", words.split())
    seen = []
    monkeypatch.setattr(tool, "Trainer", lambda args: seen.append(Trainer(args=args)) or seen[-1])
    tool.main()
    assert "S^2/N^2" in capsys.readouterr().out
    trainer = seen[0]
    one, again = tool.gradient(trainer, 1), tool.gradient(trainer, 1)
    assert torch.equal(one, again) and one.abs().sum() > 0
    assert not torch.equal(one, tool.gradient(trainer, 2))
    assert all(p.grad is None for p in trainer.parameters)


def test_signal_is_found_in_the_layer_that_has_it() -> None:
    blocks = torch.nn.ModuleList(torch.nn.ModuleDict({"loud": torch.nn.Linear(20, 5), "mute": torch.nn.Linear(20, 5)})
                                 for _ in range(2))  # fmt: skip
    denoiser = torch.nn.ModuleDict({"blocks": blocks})
    blocks[0]["mute"].bias.requires_grad_(False)  # what is not trained has no column
    named = [(name, p) for name, p in denoiser.named_parameters() if p.requires_grad]
    parts = [drawn(2.0 if "loud" in name else 0.0, dims=p.numel(), seed=i) for i, (name, p) in enumerate(named)]
    trainer = SimpleNamespace(policy=SimpleNamespace(denoiser=denoiser))
    found = tool.by_layer(trainer, torch.cat(parts, 1))
    assert list(found) == ["blocks.loud.weight", "blocks.loud.bias", *list(found)[2:]]
    assert set(found) == {f"blocks.{layer}.{kind}" for layer in ("loud", "mute") for kind in ("weight", "bias")}
    assert found["blocks.loud.weight"][0] == pytest.approx(2.0, rel=0.3) and abs(found["blocks.mute.weight"][0]) < 0.1


@pytest.mark.parametrize(
    ("words", "said"), [("--rollouts 2", "at least 3"), ("--sede 1", "unrecognized"), ("--seed", "expected one")]
)
def test_bad_words_are_refused(monkeypatch, capsys, words, said) -> None:
    monkeypatch.setattr("sys.argv", f"gradient_signal.py --config shapes-flow/awm {words}".split())
    with pytest.raises(SystemExit):
        tool.main()
    assert said in capsys.readouterr().err


def test_lists_are_read_as_the_train_command_reads_them(monkeypatch) -> None:
    class Enough(Exception):
        pass

    def stop(args):
        raise Enough(args.sde_window_range)

    monkeypatch.setattr(tool, "Trainer", stop)
    words = "gradient_signal.py --config shapes-flow/quickstart --sde_window_range [1,2]"
    monkeypatch.setattr("sys.argv", words.split())
    with pytest.raises(Enough, match=r"\[1, 2\]"):
        tool.main()
