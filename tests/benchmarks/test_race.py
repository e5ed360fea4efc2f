"""The race compares equal work: latents and gradients of the reference loop are the trainer's, at any batch."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.system import race


@pytest.mark.parametrize(("guidance", "size"), [(1.0, 1), (4.5, 8)])
def test_the_sides_agree_and_a_changed_setting_is_noticed(tmp_path, guidance, size):
    trainer = race.make_trainer(race.load("shapes-flow"), 8, guidance, str(tmp_path))
    batch = trainer.collect(0)
    reference = race.Reference(trainer, batch, size)
    assert max(race.check_same(trainer, batch, reference)) < race.TOLERANCE
    reference.settings = replace(reference.settings, guidance=guidance + 1)
    with pytest.raises(SystemExit, match="the sides differ"):
        race.check_same(trainer, batch, reference)


def test_ratios_are_of_cpu_time_and_of_equal_rounds(capsys):
    phases = {"rollout": 1.0, "training": 3.0}
    factors = {"ours": 1, "batch 1": 4, "batched": 2}
    times = {
        f"{side} {phase}": [(factor * seconds, 99.0), (2 * factor * seconds, 1.0)]
        for side, factor in factors.items()
        for phase, seconds in phases.items()
    }
    race.report(times, images=1)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[1] for line in lines if "/ ours" in line] == ["4.00x (4.00 to 4.00)"] * 3 + [
        "2.00x (2.00 to 2.00)"
    ] * 3
