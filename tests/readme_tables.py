"""The tables of the README, made from what the package finds: ``python -m tests.readme_tables [rewards] [methods]``."""

from __future__ import annotations

import re
import sys
import tempfile
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from diffalign.models import adapt, families
from diffalign.rewards import registry
from diffalign.trainers import make_config, methods, trainer_class
from tests.models.matrix import MATRIX

ROOT = Path(__file__).resolve().parents[1]
RECIPES, PAGES = ROOT / "scripts" / "recipes", ROOT / "docs" / "methods"
YES, NO = "●", "–"
TINY = {"num_inference_steps": 6, "num_generations": 8, "prompts_per_rollout": 1, "per_device_train_batch_size": 8,
        "updates_per_rollout": 1, "lora_r": 2, "lora_target_modules": None, "eval_dataset": None, "eval_rewards": [],
        "eval_steps": 0, "compare": False, "max_train_steps": 1, "guidance_scale": 1.0, "watchdog": "off",
        "report_to": [], "resolution": None, "max_sequence_length": None, "mixed_precision": "no",
        "gradient_checkpointing": False}  # fmt: skip
"""Keys of a recipe that a tiny model, or a machine without its data, needs otherwise."""
OF_A_MODEL = {"pretrained_model_name_or_path", "task_weights", "reward_kwargs", "sde_window_range", "train_timesteps"}


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def rewards_table() -> str:
    """One row per module of rewards."""
    groups: dict[str, list[registry.Entry]] = defaultdict(list)
    for entry in registry.entries():
        if entry.distribution == "diffalign":
            groups[entry.value.split(":")[0]].append(entry)
    rows = []
    for entries in sorted(groups.values(), key=lambda group: group[0].name):
        classes = [registry.declaration(entry) for entry in entries]
        scopes = dict.fromkeys({"pointwise": "one", "pairwise": "pairs", "group": "group"}[c.scope] for c in classes)
        marks = [any(c.differentiable for c in classes), any(c.weights for c in classes)]
        needs = sorted({need for c in classes for need in c.needs} - {"group_ids"})
        rows.append([_names(entries), ", ".join(scopes), *(YES if mark else NO for mark in marks),
                     ", ".join(need.replace("_", " ") for need in needs) or NO])  # fmt: skip
    return table(["reward", "images", "gradient", "published weights", "needs beside images"], rows)


def _names(entries: list[registry.Entry]) -> str:
    """Names with links to their pages; three or more that begin with one word are written once."""
    names = sorted(entry.name for entry in entries)
    first = Counter(name.partition("_")[0] for name in names if not _page(name))
    shown = [f"{word}_*" if first[word := name.partition("_")[0]] > 2 else name for name in names]
    return ", ".join(f"[`{name}`]({page})" if (page := _page(name)) else f"`{name}`" for name in dict.fromkeys(shown))


def _page(name: str) -> str | None:
    page = f"docs/rewards/{name}.md"
    return page if (ROOT / page).exists() else None


def methods_table(pipelines: Callable[[str], Any]) -> str:
    """One row per method, one column per set of pipelines that accept the same methods, and the lists of these.

    Args:
        pipelines: Name of a row of `MATRIX` -> a fresh pipeline.
    """
    rows: dict[str, str] = {}
    for name in MATRIX:
        rows.setdefault(type(pipelines(name)).__name__, name)
    assert set(rows) == set(families()), "every family needs a row in tests/models/matrix.py"
    found = _methods()
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for kind in families():
        name = rows[kind]
        prediction = adapt(pipelines(name), **MATRIX[name].options).prediction
        marks = [YES if _accepts(keys, pipelines(name), MATRIX[name].options) else NO for keys in found.values()]
        groups[("flow" if prediction == "flow" else "other", *marks)].append(kind.removesuffix("Pipeline"))
    columns = sorted(groups, key=lambda column: (-column.count(YES), column))
    counted = Counter(column[0] for column in columns)
    heads = [f"{c[0]} models" + (f" ({', '.join(groups[c])})" if counted[c[0]] > 1 else "") for c in columns]
    lines = [[label, *(column[i] for column in columns)] for i, label in enumerate(found, 1)]
    lists = [f"- {head.partition(' (')[0]}: {', '.join(f'`{name}`' for name in groups[column])}"
             for head, column in zip(heads, columns, strict=True)]  # fmt: skip
    return table(["method", *heads], lines) + "\n\n" + "\n".join(lists)


def _methods() -> dict[str, dict[str, Any]]:
    """Label -> keys, of every method with a page or a recipe of its name, then of those that the registry alone has."""
    found, covered = {}, set()
    for page in sorted(PAGES.glob("*.md")):
        recipe = next(iter(sorted(RECIPES.glob(f"shapes-*/{page.stem}.yaml"))))
        keys = yaml.safe_load(recipe.read_text(encoding="utf-8"))
        title = page.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        found[f"[{title}](docs/methods/{page.name})"] = keys
        covered.add(keys.get("method", "policy_gradient"))
    return found | {f"`{name}`": {"method": name} for name in methods() if name not in covered}


def _accepts(keys: dict[str, Any], pipeline: Any, options: dict[str, Any]) -> bool:
    """True when a trainer of these keys can be made for the pipeline."""
    own = {key: value for key, value in keys.items() if key not in OF_A_MODEL} | TINY
    if keys.get("prefix_branches"):
        own["prefix_branches"] = 4
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = make_config(own | {"output_dir": folder, "train_dataset": "shapes:train"})
        try:
            trainer_class(config.method)(adapt(pipeline, **options), config, reward_funcs=["jpeg"])
        except ValueError:
            return False
    return True


def put(text: str, name: str, content: str) -> str:
    """`text` with what is between its two comments of this name replaced."""
    return re.sub(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", rf"\1{content}\n\2", text, flags=re.DOTALL)


def fresh(name: str) -> Any:
    """A tiny pipeline."""
    pipeline = MATRIX[name].build()
    MATRIX[name].prepare(pipeline)
    return pipeline


if __name__ == "__main__":
    readme, wanted = ROOT / "README.md", sys.argv[1:] or ["rewards", "methods"]
    text = readme.read_text(encoding="utf-8")
    for name in wanted:
        text = put(text, name, rewards_table() if name == "rewards" else methods_table(fresh))
    readme.write_text(text, encoding="utf-8")
