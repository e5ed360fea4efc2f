"""What a run leaves behind: evaluations, comparison, report, card, weights that plain diffusers takes."""

from __future__ import annotations

import json

import pytest
import torch
from huggingface_hub.utils import filter_repo_objects

from diffalign.models import adapt
from diffalign.sampling import make_plan, ode, rollout
from diffalign.trainers import evaluate_policy
from tests.tiny_pipelines import tiny_sd, tiny_sd3
from tests.trainers.small_runs import DDPO, RECORDS, disturb, events

COMPARE = {"compare": True, "eval_images_per_prompt": 2, "eval_guidance_scales": [1.0, 2.0], "eval_records": RECORDS}


def pictures(pipeline):
    policy = pipeline if hasattr(pipeline, "denoiser") else adapt(pipeline)
    plan = make_plan(ode(policy.schedule(3)))
    return rollout(policy, plan, [record["prompt"] for record in RECORDS], [1, 2]).images


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_before_and_after_are_measured_alike_and_compared(make, folder, capsys):
    trainer = make(**COMPARE, eval_steps=2, max_train_steps=4)
    trainer.train()
    assert {
        "config.yaml",
        "metrics.jsonl",
        "report.html",
        "README.md",
        "pytorch_lora_weights.safetensors",
        "evaluation/before.json",
        "evaluation/after.json",
        "evaluation/comparison.json",
        "images/before.png",
        "images/after.png",
    } <= files(folder)
    before, after = (json.loads((folder / "evaluation" / f"{name}.json").read_text()) for name in ("before", "after"))
    assert (before["step"], after["step"]) == (0, 4)
    for key in ("suite", "seeds", "num_inference_steps", "images_per_prompt"):
        assert before[key] == after[key]
    assert before["prompts"] != after["prompts"]
    lines = events(folder, "evaluation")
    marks = [(line["step"], line.get("protocol")) for line in lines]
    assert marks == [(0, "before"), *[(2, None)] * 2, *[(4, None)] * 2, (4, "after")]
    both = [before["best_guidance"], trainer.args.guidance_scale]
    assert [line["guidance"] for line in lines[:-1]] == [both[0], *both, *both] and both[0] != both[1]
    assert lines[0]["overall"] == before["guidance"][str(before["best_guidance"])]["overall"]
    assert all(line["reward/redness/mean"] is not None for line in lines[1:-1])
    printed = capsys.readouterr().out.strip().splitlines()
    assert printed[0] == str(folder / "report.html") and printed[1].startswith("overall ")


def test_before_is_the_model_as_it_came(make, folder):
    trainer = make(**COMPARE)
    untouched = pictures(tiny_sd3())
    assert torch.equal(pictures(trainer.policy), untouched)
    trainer.train()
    again = make(**COMPARE, name="again", learning_rate=5e-2)
    again.train()
    first, second = (
        json.loads((where / "evaluation" / "before.json").read_text()) for where in (folder, folder.parent / "again")
    )
    assert first == second


def test_an_evaluation_of_the_same_base_is_taken_over_and_another_is_refused(make, folder):
    make(**COMPARE).train()
    before = folder / "evaluation" / "before.json"
    again = make(**COMPARE, name="again", eval_before=str(before), learning_rate=5e-2)
    again.train()
    other = folder.parent / "again"
    assert (other / "evaluation" / "before.json").read_bytes() == before.read_bytes()
    assert (other / "images" / "before.png").read_bytes() == (folder / "images" / "before.png").read_bytes()
    marks = [(line["step"], line.get("protocol")) for line in events(other, "evaluation")]
    assert marks[0] != (0, "before") and marks[-1][1] == "after"
    assert again.state.guidance == json.loads(before.read_text())["best_guidance"]
    for keys, named in (
        ({"eval_images_per_prompt": 3}, "images_per_prompt = 2, and this run 3"),
        ({"eval_images_per_scale": 1}, "images_per_scale = 2, and this run 1"),
        ({"eval_guidance_scales": [1.0]}, "guidance"),
        ({"eval_num_inference_steps": 5}, "num_inference_steps"),
        ({"negative_prompt": "blue"}, "negative_prompt = '', and this run 'blue'"),
        ({"eval_rewards": ["jpeg"]}, "rewards"),
        ({"eval_records": RECORDS[:1]}, "other prompts"),
    ):
        with pytest.raises(ValueError, match=named):
            make(**(COMPARE | keys), name="refused", eval_before=str(before), overwrite_output_dir=True).train()
    for change, named in (({"model": "another"}, "model = 'another'"), ({"seeds": 4}, "other seeds")):
        found = json.loads(before.read_text()) | change
        (before.parent / "changed.json").write_text(json.dumps(found))
        with pytest.raises(ValueError, match=named):
            keys = {"eval_before": str(before.parent / "changed.json"), "overwrite_output_dir": True}
            make(**COMPARE, name="refused", **keys).train()


def test_a_run_chooses_the_scale_on_few_images_and_its_report_says_so(make, folder):
    make(**COMPARE, eval_images_per_scale=1).train()
    assert json.loads((folder / "evaluation" / "after.json").read_text())["images_per_scale"] == 1
    assert "chosen on 1 images per prompt and measured on 2" in (folder / "report.html").read_text()
    again = make(**COMPARE, name="again", eval_images_per_scale=1, eval_before=str(folder / "evaluation/before.json"))
    again.train()
    assert again.evaluations.headline


def test_a_process_that_is_not_the_main_one_measures_and_leaves_writing_to_it(make, monkeypatch):
    trainer = make(**COMPARE)
    monkeypatch.setattr(type(trainer.accelerator), "is_main_process", property(lambda _: False))
    trainer._evaluate_untrained()
    assert trainer.state.guidance in (1.0, 2.0) and not trainer.evaluations.has_before


def test_the_curve_has_a_line_for_the_scale_that_was_best_and_one_for_the_trained_one(make):
    trainer = make(**COMPARE, guidance_scale=1.0, eval_steps=1, eval_rewards=["jpeg"])
    trainer.folder.mkdir()
    trainer.state.guidance = 6.0
    trainer._evaluate_now()
    lines = events(trainer.folder, "evaluation")
    assert [line["guidance"] for line in lines] == [6.0, 1.0]
    assert ["watch/diversity" in line for line in lines] == [False, True]
    for line in lines:
        one = evaluate_policy(
            trainer.policy,
            trainer.eval_records,
            trainer.eval_rewards,
            guidance_scales=[line["guidance"]],
            num_inference_steps=trainer.evaluations.steps,
            images_per_prompt=2,
            progress=False,
        )
        assert line["overall"] == pytest.approx(one["guidance"][str(line["guidance"])]["overall"], abs=1e-6)
    assert lines[0]["overall"] != lines[1]["overall"]
    trainer.state.guidance = 1.0
    trainer._evaluate_now()
    assert len(events(trainer.folder, "evaluation")) == 3


def test_eval_before_needs_compare_and_a_file(make, tmp_path):
    with pytest.raises(ValueError, match="set compare"):
        make(eval_before=str(tmp_path / "before.json"))
    with pytest.raises(ValueError, match="does not exist"):
        make(**COMPARE, eval_before=str(tmp_path / "before.json"))


@pytest.mark.parametrize(("build", "keys"), [(tiny_sd3, {}), (tiny_sd, DDPO)])
def test_plain_diffusers_loads_the_lora_and_gives_the_trained_images(make, folder, build, keys):
    trainer = make(build(), **keys, learning_rate=5e-2)
    trainer.train()
    plain = build()
    plain.load_lora_weights(str(folder))
    trained = pictures(trainer.policy)
    assert torch.allclose(pictures(plain), trained, atol=1e-6)
    assert float((trained - pictures(build())).abs().max()) > 1e-4


def test_with_averages_the_averaged_weights_are_saved_and_evaluated(make, folder):
    trainer = make(**COMPARE, learning_rate=5e-2, ema_decay=0.5, max_train_steps=6)
    trainer.train()
    raw = pictures(trainer.policy)
    with trainer.averaged():
        averaged = pictures(trainer.policy)
        found = trainer.evaluations._measure([1.0, 2.0], 2)
    assert torch.equal(pictures(trainer.policy), raw)
    plain = tiny_sd3()
    plain.load_lora_weights(str(folder))
    assert torch.allclose(pictures(plain), averaged, atol=1e-6)
    assert float((raw - averaged).abs().max()) > 1e-5
    after = json.loads((folder / "evaluation" / "after.json").read_text())
    assert found["prompts"] == after["prompts"]


def test_full_fine_tuning_saves_a_pipeline(make, folder):
    trainer = make(lora_r=0, learning_rate=1e-3)
    trainer.train()
    again = type(trainer.policy.pipeline).from_pretrained(str(folder))
    assert torch.allclose(pictures(again), pictures(trainer.policy), atol=1e-6)
    assert (folder / "README.md").exists() and not (folder / "pytorch_lora_weights.safetensors").exists()


def test_save_model_writes_where_it_is_told(make, folder, tmp_path):
    trainer = make()
    disturb(trainer)
    trainer.save_model(tmp_path / "elsewhere")
    assert files(tmp_path / "elsewhere") == {"pytorch_lora_weights.safetensors"} and not folder.exists()


def test_a_resumed_comparison_needs_its_beginning(make, folder):
    make(max_train_steps=2).train()
    with pytest.raises(ValueError, match=r"compare is on, but .* resume with compare: false"):
        make(max_train_steps=4, **COMPARE).train("latest")
    make(max_train_steps=4).train("latest")
    make(name="other", max_train_steps=2, **COMPARE).train()
    before = (folder.parent / "other" / "evaluation" / "before.json").read_text()
    make(name="other", max_train_steps=4, **COMPARE).train("latest")
    assert (folder.parent / "other" / "evaluation" / "before.json").read_text() == before


def test_pictures_are_made_in_batches(make, monkeypatch):
    trainer = make(**COMPARE, per_device_train_batch_size=1)
    seen = []
    real = trainer.policy.predict
    trainer.policy.predict = lambda x, *args: (seen.append(len(x)), real(x, *args))[1]
    trainer.folder.mkdir()
    trainer.evaluations.pictures("before", 1.0, 0)
    assert set(seen) == {1} and len(seen) == 2 * 3


class Hub:
    """Stands for HfApi: remembers what it was asked."""

    calls: list[tuple] = []

    def create_repo(self, repo_id, **options):
        Hub.calls.append(("create", repo_id, options))
        return f"https://example.org/{repo_id}"

    def upload_folder(self, *, repo_id, folder_path, ignore_patterns):
        Hub.calls.append(("upload", repo_id, folder_path, ignore_patterns))


def test_push_uploads_the_run_without_checkpoints_or_token(make, folder, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    monkeypatch.setenv("HF_TOKEN", "hf_verysecret")
    Hub.calls = []
    trainer = make(checkpointing_steps=2)
    trainer.train()
    assert trainer.push_to_hub("someone/red", private=True) == "https://example.org/someone/red"
    create, upload = Hub.calls
    assert create == ("create", "someone/red", {"private": True, "exist_ok": True})
    sent = set(filter_repo_objects(sorted(files(folder)), ignore_patterns=upload[3]))
    assert upload[2] == str(folder) and any(name.startswith("checkpoint-2") for name in files(folder))
    assert {"pytorch_lora_weights.safetensors", "config.yaml", "README.md", "report.html"} <= sent
    assert not [name for name in sent if "checkpoint" in name]
    assert not [name for name in files(folder) if b"hf_verysecret" in (folder / name).read_bytes()]
    assert "someone/red" in (folder / "README.md").read_text()


def test_the_card_names_the_model_that_was_given(make, folder, tmp_path):
    tiny_sd3().save_pretrained(tmp_path / "my-model")
    make(str(tmp_path / "my-model")).train()
    assert "my-model" in (folder / "README.md").read_text()
    make(name="object").train()
    text = (folder.parent / "object" / "README.md").read_text()
    assert "StableDiffusion3Pipeline" in text and "shapes-flow" not in text
