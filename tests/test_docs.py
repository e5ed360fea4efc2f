"""What README and docs say can be followed: links lead somewhere, named commands exist, Python blocks run."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import diffalign
from diffalign.commands import verbs
from diffalign.trainers import preflight
from tests.tiny_pipelines import tiny_sd3
from tests.trainers.small_runs import RECORDS, small_trainer

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md")]
PAGES += sorted(path for folder in ("docs", "benchmarks") for path in (ROOT / folder).rglob("*.md"))


def blocks(page: Path, language: str) -> list[str]:
    """Fenced code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def relative_links(page: Path) -> list[str]:
    """Targets of Markdown links and pictures that stay in the tree, anchors cut off."""
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    return [t.split("#")[0] for t in targets if t.split("#")[0] and not re.match(r"[a-z]+:", t)]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    missing = [target for target in relative_links(page) if not (page.parent / target).exists()]
    assert not missing


def test_every_page_is_in_the_index() -> None:
    listed = {(ROOT / "docs" / target).resolve() for target in relative_links(ROOT / "docs" / "index.md")}
    pages = {page.resolve() for page in (ROOT / "docs").rglob("*.md")} - {(ROOT / "docs" / "index.md").resolve()}
    assert not pages - listed, "pages that docs/index.md does not link"


def test_every_image_is_on_a_page() -> None:
    shown = {(page.parent / target).resolve() for page in PAGES for target in relative_links(page)}
    assert not {path.resolve() for path in (ROOT / "docs" / "images").rglob("*.*")} - shown


def test_the_commands_of_the_readme_exist() -> None:
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    targets = re.findall(r"^make ([\w-]+)", readme, flags=re.MULTILINE)
    assert targets[:2] == ["quickstart", "test"]
    assert set(targets) <= set(re.findall(r"^([\w-]+):", makefile, flags=re.MULTILINE))
    words = re.findall(r"(?:^diffalign|-m diffalign) ([a-z| ]+)", readme, flags=re.MULTILINE)
    named = {word for group in words for word in re.split(r"[ |]+", group.strip()) if word}
    assert {"train", "doctor", "generate"} <= named <= set(verbs())


def test_recipes_that_are_named_exist() -> None:
    text = "\n".join(page.read_text() for page in [*PAGES, ROOT / "Makefile"])
    named = set(re.findall(r"scripts/recipes/[\w./-]+\.yaml", text))
    assert "scripts/recipes/shapes-flow/quickstart.yaml" in named
    assert not [recipe for recipe in named if not (ROOT / recipe).is_file()]


def test_the_python_of_the_rewards_page_runs() -> None:
    for code in blocks(ROOT / "docs" / "rewards.md", "python"):
        exec(compile(code, "docs/rewards.md", "exec"), {})  # noqa: S102
    assert len(blocks(ROOT / "docs" / "rewards.md", "python")) >= 2


@pytest.mark.slow
def test_the_python_of_the_readme_runs(tmp_path: Path) -> None:
    (code,) = blocks(ROOT / "README.md", "python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    path = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
    done = subprocess.run(
        [sys.executable, "-c", path + code], cwd=tmp_path, capture_output=True, text=True, timeout=1800, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "runs/red/lora/pytorch_lora_weights.safetensors").is_file()
    log = [json.loads(line) for line in (tmp_path / "runs/red/metrics.jsonl").read_text().splitlines()]
    rewards = [row["reward/red/mean"] for row in log if row["event"] == "step"]
    assert sum(rewards[-10:]) > 1.3 * sum(rewards[:10]), "the example learns"


def test_the_citation_file_is_of_this_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(cited)
    assert (cited["version"], cited["license"]) == (diffalign.__version__, "Apache-2.0")


def test_the_trainer_of_the_page_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = blocks(ROOT / "docs" / "adding_a_trainer.md", "python")[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 40
    (tmp_path / "best_of_group.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("best_of_group")
    records = [{"prompt": f"a photo of a {colour} circle", "metadata": {}} for colour in ("red", "blue")]
    args = module.BestOfGroupConfig(
        max_train_steps=2, num_inference_steps=3, num_generations=4, prompts_per_rollout=2, updates_per_rollout=1,
        per_device_train_batch_size=4, lora_r=2, eval_dataset=None, output_dir=str(tmp_path / "run"), preflight=False,
    )  # fmt: skip
    trainer = module.BestOfGroupTrainer(
        tiny_sd3(), args, reward_funcs=[lambda images, *_: images.mean((1, 2, 3))], train_dataset=records
    )
    batch = trainer.with_feedback(trainer.collect(0))[0]
    (scores,) = batch.rewards.values()
    assert torch.equal(scores[batch.feedback], scores.view(2, 4).amax(1)), "the best of each group"
    assert trainer.train().metrics["grad_norm"] > 0


@pytest.mark.parametrize("keys", [{"trust_region": "kl_mask", "beta": 0.1}, {"method": "nft", "sde_type": "ode"}])
def test_every_number_of_a_log_is_explained(tmp_path: Path, keys: dict[str, Any]) -> None:
    small_trainer(tmp_path, eval_records=RECORDS, eval_steps=2, eval_rewards=["jpeg"], **keys).train()
    text = (ROOT / "docs" / "metrics.md").read_text()
    explained = set(re.findall(r"`([^`\s]+)`", text))
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        for key in set(json.loads(line)) - {"event", "message"}:
            key = re.sub(r"^reward/[^/]+/", "reward/<name>/", re.sub(r"/\d+$", "/k", key))
            key = re.sub(r"^(forward|backward|seconds)/\w+$", r"\1/<phase>", key)
            key = re.sub(r"^task/.+$", "task/<task>", re.sub(r"^watch/(?!alarms).+$", "watch/<measure>", key))
            assert key in explained, f"{key} is not in docs/metrics.md"


@pytest.mark.parametrize("keys", [{"beta": 0.1, "ema_decay": 0.5}, {"method": "nft", "sde_type": "ode"}, {"lora_r": 0}])
def test_every_check_of_the_doctor_is_explained(tmp_path: Path, keys: dict[str, Any]) -> None:
    text = (ROOT / "docs" / "faults.md").read_text()
    listed = {re.sub(r"\s*(\(|\*).*", "", row).strip() for row in re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE)}
    for check in preflight(small_trainer(tmp_path, **keys), full=True):
        name = re.sub(r"^reward \S+ ", "reward NAME ", re.sub(r"step \d+", "step k", check.name))
        assert re.sub(r"rounding in \S+", "rounding in PRECISION", name) in listed, f"{name} is not in docs/faults.md"
