"""The pages about sampling and models: their code runs, their example is the file, every family is listed."""

from __future__ import annotations

import re
from pathlib import Path

import diffalign
from diffalign.models.families import families

DOCS = Path(diffalign.__file__).resolve().parent.parent / "docs"


def python_of(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), flags=re.MULTILINE | re.DOTALL)


def test_the_python_of_the_sampling_page_runs_as_one_session():
    session: dict = {}
    for code in python_of("sampling.md"):
        exec(compile(code, "docs/sampling.md", "exec"), session)  # noqa: S102
    assert tuple(session["trajectory"].images.shape) == (4, 3, 32, 32)
    assert float((session["out"].log_prob - session["trajectory"].log_probs[1]).abs().max()) == 0
    assert tuple(session["prediction"].shape) == (4, *session["policy"].latent_shape)


def test_the_complete_example_is_a_file_of_the_tree_and_the_self_check_runs():
    example, check = python_of("adding_a_model.md")
    assert example == (DOCS.parent / "diffalign" / "models" / "auraflow.py").read_text()
    *before, last = check.strip().splitlines()
    session: dict = {}
    exec(compile("\n".join(before), "docs/adding_a_model.md", "exec"), session)  # noqa: S102
    assert eval(last.split("#")[0], session).largest < 1e-5  # noqa: S307


def test_every_family_is_on_the_models_page():
    page = (DOCS / "models.md").read_text()
    assert not [name for name in families() if f"`{name}`" not in page]
