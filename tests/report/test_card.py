"""The model card: front matter, results, loading code."""

from __future__ import annotations

import json

import pytest
import yaml
from huggingface_hub import ModelCard

from diffalign.report.card import write_card


def front(text: str) -> dict:
    return yaml.safe_load(text.split("---")[1])


def test_the_hub_reads_the_front_matter(run_dir):
    (run_dir / "pytorch_lora_weights.safetensors").touch()
    data = ModelCard.load(write_card(run_dir, base_model="someone/base-model")).data
    assert (data.library_name, data.pipeline_tag) == ("diffusers", "text-to-image")
    assert data.base_model == "someone/base-model"
    assert {"diffalign", "lora"} <= set(data.tags)
    assert data.to_dict()["base_model_relation"] == "adapter"


@pytest.mark.parametrize("base", ["shapes-flow", "/home/me/model", "./model", "a/b/c"])
def test_a_base_model_outside_the_hub_is_no_link(run_dir, base):
    card = write_card(run_dir, base_model=base).read_text()
    assert "base_model" not in front(card)
    assert base in card


def test_results_are_those_of_the_comparison(run_dir):
    card = write_card(run_dir, name="My model").read_text()
    overall = json.loads((run_dir / "evaluation/comparison.json").read_text())["overall"]
    assert "\n# My model\n" in card
    assert f"**overall {overall['before']:.2f} -> {overall['after']:.2f} (+" in card
    assert sum(line.startswith("| ") for line in card.splitlines()) == 8


def test_an_unfinished_run_has_a_card_without_results(tmp_path):
    card = write_card(tmp_path).read_text()
    assert front(card)["library_name"] == "diffusers"
    assert "Results" not in card


def test_names_cannot_break_out(run_dir):
    config = (run_dir / "config.yaml").read_text().replace("flow-grpo-shapes", '"a <script> | b\\n# c"')
    (run_dir / "config.yaml").write_text(config + "# ``` and ````\n")
    card = write_card(run_dir).read_text()
    title = next(line for line in card.splitlines() if line.startswith("# "))
    assert title == "# a &lt;script> \\| b # c"
    assert "`````yaml" in card


def test_python_in_the_card_is_valid(run_dir):
    (run_dir / "unet").mkdir()
    (run_dir / "unet/config.json").write_text('{"_class_name": "UNet2DConditionModel"}')
    for weights in (None, "pytorch_lora_weights.safetensors"):
        if weights:
            (run_dir / weights).touch()
        code = write_card(run_dir, call_kwargs={"max_sequence_length": 16}).read_text().split("```python\n")[1]
        compile(code.split("```")[0], "card", "exec")
