"""Finished run folders, made small."""

from __future__ import annotations

import json

import pytest
import yaml

TASKS = ["single_object"] * 5 + ["counting"] * 5


def evaluation(scores, soft, guidance, **changes):
    lines = [
        {"prompt": f"p{i}", "task": TASKS[i], "score": value, "rewards": {"shapes_strict": value, "shapes": other}}
        for i, (value, other) in enumerate(zip(scores, soft, strict=True))
    ]
    tasks = {task: sum(line["score"] for line in lines if line["task"] == task) / 5 for task in dict.fromkeys(TASKS)}
    mean = {"overall": sum(scores) / len(scores), "tasks": tasks}
    return {"suite": "shapes_strict", "best_guidance": guidance, "guidance": {"2.0": mean, "3.0": mean}, "seed": 0,
            "seeds": [1, 2], "num_inference_steps": 8, "images_per_prompt": 4, "prompts": lines} | changes  # fmt: skip


@pytest.fixture
def run_folder(tmp_path):
    """Makes a finished run folder whose score rose by `gain` in every prompt."""

    def make(name, gain, *, seed=0, soft=0.2, heldout=(0.3, 0.4), cost=(600, 400), base=0.2, **config):
        folder = tmp_path / "runs" / name
        (folder / "evaluation").mkdir(parents=True)
        scores = [base + 0.02 * i for i in range(10)]
        before = evaluation(scores, [0.3] * 10, 3.0)
        after = evaluation([score + gain for score in scores], [0.3 + soft] * 10, 2.0)
        for side, content in (("before", before), ("after", after)):
            (folder / "evaluation" / f"{side}.json").write_text(json.dumps(content))
        resolved = {"pretrained_model_name_or_path": "shapes-flow", "method": "awm", "seed": seed, "lora_r": 4,
                    "reward_funcs": ["shapes"], "eval_dataset": "shapes:heldout", "output_dir": str(folder),
                    "eval_before": "/home/me/before.json"}  # fmt: skip
        (folder / "config.yaml").write_text(yaml.safe_dump(resolved | config))
        rows = []
        for i, score in enumerate(heldout, 1):
            step = {"event": "step", "step": i, "images": 8, "forward/preflight": 7, "reward/a/mean": 0.2,
                    "reward/b/mean": 0.4, "seconds/rollout": 60.0}  # fmt: skip
            rows += [step | {"forward/rollout": cost[0] // len(heldout), "backward/train": cost[1] // len(heldout)}]
            other = {"event": "evaluation", "step": i, "overall": 0.9}
            rows += [other | {"guidance": 2.0}, other | {"guidance": 3.0, "overall": score}]
        rows.append({"event": "evaluation", "step": len(heldout), "overall": 1.0, "guidance": 3.0, "protocol": "after"})
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return folder

    return make
