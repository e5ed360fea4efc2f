"""Every kernel compiles for sm_80 and sm_90 without a GPU, within what a block has, with the resources of the table."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffalign.cuda_ext import resources

MULTIPLY = ("cross_attention", "linear_log_prob")
SLOW = ("cross_attention",)


@pytest.mark.parametrize("kernel", [pytest.param(k, marks=[pytest.mark.slow] * (k in SLOW)) for k in resources.KERNELS])
def test_a_kernel_takes_what_the_table_says(kernel: str) -> None:
    pytest.importorskip("triton", reason="Triton is not installed")
    found = resources.measured([kernel])
    assert found
    for name, (registers, spills, shared, wgmma) in found.items():
        assert 0 < registers <= resources.REGISTERS and not spills, name
        assert shared <= resources.SHARED[int(name[-2:])], name
        assert (wgmma > 0) is (kernel in MULTIPLY and name.endswith("sm_90")), name
    expected = resources.known()
    if expected is None:
        pytest.skip(f"no table for Triton {resources.version()}; measured: {found}")
    assert resources.differences(found, expected) == []


def test_a_table_is_read_as_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "TABLE", tmp_path / "table.json")
    monkeypatch.setattr(resources, "version", lambda: "9.9")
    assert resources.known() is None
    resources.write({"a sm_90": [32, 0, 64, 0], "b sm_80": [255, 8, 0, 0]})
    assert resources.known() == {"a sm_90": [32, 0, 64, 0], "b sm_80": [255, 8, 0, 0]}
    assert resources.differences({"a sm_90": [32, 0, 64, 0]}, resources.known() or {}) == []
    changed = resources.differences({"a sm_90": [33, 0, 64, 0], "c sm_90": [1, 0, 0, 0]}, resources.known() or {})
    assert len(changed) == 2 and "'registers': 33" in changed[0] and "table: None" in changed[1]
    monkeypatch.setattr(resources, "version", lambda: "10.0")
    assert resources.known() is None
