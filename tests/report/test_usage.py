"""Loading code for LoRA and for whole denoisers, run against stand-ins of the pipeline classes."""

from __future__ import annotations

import sys
import types

import pytest

from diffalign.report.usage import Weights, usage, weights_in

COMPARISON = {"num_inference_steps": 8, "guidance": {"before": 2.0, "after": 1.5}}


@pytest.fixture
def run_code(monkeypatch):
    """Function that runs card code with recording classes in place of diffusers and returns the calls."""

    def run(code):
        calls = []

        class Recorder:
            def __init__(self, *args, **kwargs):
                calls.append(("load", args, kwargs))

            @classmethod
            def from_pretrained(cls, *args, **kwargs):
                return cls(*args, **kwargs)

            def load_lora_weights(self, *args):
                calls.append(("lora", args, {}))

            def __call__(self, *args, **kwargs):
                calls.append(("call", args, kwargs))
                return types.SimpleNamespace(images=["picture"])

        classes = {"DiffusionPipeline": Recorder, "SD3Transformer2DModel": Recorder}
        monkeypatch.setitem(sys.modules, "diffusers", types.SimpleNamespace(**classes))
        shipped = types.SimpleNamespace(checkpoint=lambda name: f"shipped:{name}")
        monkeypatch.setitem(sys.modules, "diffalign.shapes.shipped", shipped)
        exec(code, {})
        return calls

    return run


def test_lora_on_a_hub_model(run_code):
    load, lora, call = run_code(usage("a/b", Weights("lora"), COMPARISON, {"max_sequence_length": 16}))
    assert load[1:] == (("a/b",), {})
    assert lora[0] == "lora"
    assert call[1:] == (
        ("a prompt",),
        {"num_inference_steps": 8, "guidance_scale": 1.5, "max_sequence_length": 16},
    )


def test_shipped_names_are_looked_up(run_code):
    assert run_code(usage("shapes-flow", Weights("lora"), None, {}))[0][1] == ("shipped:shapes-flow",)


def test_a_whole_denoiser_replaces_that_of_the_base(run_code):
    part, load, call = run_code(usage("a/b", Weights("denoiser", "transformer", "SD3Transformer2DModel"), None, {}))
    assert part[2] == {"subfolder": "transformer"}
    assert load[1] == ("a/b",) and set(load[2]) == {"transformer"}
    assert call[1:] == (("a prompt",), {})


def test_a_whole_pipeline_needs_no_base(run_code):
    load, call = run_code(usage("a/b", Weights("pipeline"), None, {}))
    assert load[1:] == (("path/to/this/folder",), {})
    assert call[0] == "call"


def test_weights_in_the_folder_decide(tmp_path):
    assert weights_in(tmp_path).kind == "lora"
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer/config.json").write_text('{"_class_name": "SD3Transformer2DModel"}')
    assert weights_in(tmp_path) == ("denoiser", "transformer", "SD3Transformer2DModel")
    (tmp_path / "model_index.json").touch()
    assert weights_in(tmp_path).kind == "pipeline"
    (tmp_path / "pytorch_lora_weights.safetensors").touch()
    assert weights_in(tmp_path).kind == "lora"
