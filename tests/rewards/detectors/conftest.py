from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.rewards.vlm.conftest import qwen as qwen
from tests.rewards.vlm.conftest import server as server
from tests.tiny_judges import BUILDERS


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Folder of a small random model of a judge, made once."""
    folder = tmp_path_factory.mktemp("judges")
    return lambda name: str(folder / name if (folder / name).exists() else BUILDERS[name](folder / name))
