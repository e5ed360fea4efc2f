"""Options that several commands have."""

from __future__ import annotations

import pytest
import torch

from diffalign.commands._options import find_device


@pytest.mark.skipif(torch.accelerator.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("name", ["cuda", "gpu", "cuda:0", "meta", ""])
def test_a_device_that_is_not_here_is_one_sentence(name):
    with pytest.raises(ValueError, match=rf"--device {name} is not here; PyTorch sees no GPU .valid: cpu.$"):
        find_device(name)


def test_the_cpu_is_always_there():
    assert find_device("cpu") == torch.device("cpu")
    assert find_device(None).type in ("cpu", "cuda")
