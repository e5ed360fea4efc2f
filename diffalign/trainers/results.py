"""Evaluations before, during and after training; pictures, report page, model card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from diffalign.report import compare, headline, image_grid, write_card, write_report
from diffalign.rewards.base import Reward
from diffalign.sampling import noise_key, rollout
from diffalign.trainers import setup
from diffalign.trainers.evaluation import Record, choosing_images, decoded, evaluate_policy, evaluation_seeds
from diffalign.trainers.plans import evaluation_plan
from diffalign.trainers.watchdog import IMAGES

if TYPE_CHECKING:
    from diffalign.trainers.base import BaseTrainer

PICTURES_PER_TASK, COLUMNS = 4, 8


class Results:
    """Writes what a run found out into its folder; every process evaluates its share, the main one writes.

    Args:
        trainer: the run.
    """

    def __init__(self, trainer: BaseTrainer) -> None:
        self.trainer = trainer
        self.headline: str | None = None

    @property
    def steps(self) -> int:
        """ODE steps of every evaluation."""
        return self.trainer.args.eval_num_inference_steps or self.trainer.args.num_inference_steps

    @property
    def has_before(self) -> bool:
        """True when the folder holds an evaluation of the untrained policy."""
        return (self.trainer.folder / "evaluation" / "before.json").is_file()

    def before(self) -> None:
        """Evaluate the untrained policy at every guidance scale, or take `eval_before`; its best one is remembered."""
        reused = self.trainer.args.eval_before
        found = self._taken(Path(reused)) if reused else self._evaluate("before")
        self.trainer.state.guidance = found["best_guidance"]

    def after(self) -> None:
        """Evaluate the trained policy the same way and compare, each at its own best guidance scale."""
        found = self._evaluate("after")
        if not self.trainer.accelerator.is_main_process:
            return
        folder = self.trainer.folder / "evaluation"
        before = json.loads((folder / "before.json").read_text(encoding="utf-8"))
        comparison = compare(before, found)
        _write(folder / "comparison.json", comparison)
        self.headline = headline(comparison)

    def evaluate_now(self) -> None:
        """Evaluation for the curve on few images per prompt, a line for each of two guidance scales.

        The scale that was best before training, and the one that is trained, where the watchdog looks too.
        """
        trainer, trained = self.trainer, self.trainer.args.guidance_scale
        watch = trainer.watchdog
        alone = all(reward.scope == "pointwise" for reward in trainer.eval_rewards.values())
        few = IMAGES if watch.active else 1
        images = few if alone else max(trainer.args.eval_images_per_prompt, few)
        for scale in dict.fromkeys([trainer.state.guidance or trained, trained]):
            found = self._measure([scale], images, watch.measures if scale == trained else None)
            numbers = self._held_out_numbers(found) | self._costs()
            if trainer.accelerator.is_main_process:
                if scale == trained:
                    numbers |= watch.observe(found["prompts"])
                trainer.log.write("evaluation", trainer.state.step, numbers)
            trainer.accelerator.wait_for_everyone()

    def _held_out_numbers(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Scores of one evaluation: overall, by task, and the mean of each reward."""
        table = found["guidance"][str(float(found["best_guidance"]))]
        numbers: dict[str, Any] = {"guidance": found["best_guidance"], "overall": table["overall"]}
        numbers |= {f"task/{task}": value for task, value in table["tasks"].items()}
        for name in self.trainer.eval_rewards:
            values = [p["rewards"][name] for p in found["prompts"] if p["rewards"][name] is not None]
            numbers[f"reward/{name}/mean"] = sum(values) / len(values) if values else float("nan")
        return numbers

    def report(self) -> None:
        """Write the report page and the model card; print where the page is, and the headline."""
        trainer = self.trainer
        if trainer.accelerator.is_main_process:
            page = write_report(trainer.folder)
            self._card()
            print(page)
            if self.headline:
                print(self.headline)
        trainer.accelerator.wait_for_everyone()

    def push(self, repo_id: str, *, private: bool) -> str:
        """Upload weights, configuration, card and report; returns the repository's address."""
        from huggingface_hub import HfApi

        folder = self.trainer.folder
        if not self.trainer.accelerator.is_main_process:
            return repo_id
        self._card(repo_id)
        api = HfApi()
        address = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo_id, folder_path=str(folder), ignore_patterns=["checkpoint-*", ".checkpoint-*"])
        return str(address)

    def _card(self, name: str | None = None) -> None:
        """The model card; its example calls the pipeline as the policy does."""
        trainer = self.trainer
        write_card(
            trainer.folder,
            base_model=trainer.args.pretrained_model_name_or_path,
            name=name,
            call_kwargs={k: v for k, v in trainer.policy.call_arguments().items() if k != "guidance_scale"},
        )

    def _evaluate(self, name: str) -> dict[str, Any]:
        trainer = self.trainer
        args = trainer.args
        found = self._measure(
            args.eval_guidance_scales, args.eval_images_per_prompt, images_per_scale=args.eval_images_per_scale
        )
        found |= {"step": trainer.state.step, "model": self._model, "negative_prompt": args.negative_prompt}
        if trainer.accelerator.is_main_process:
            _write(trainer.folder / "evaluation" / f"{name}.json", found)
            self._pictures(name, found["best_guidance"])
        costs = self._costs()
        if trainer.accelerator.is_main_process:
            numbers = {key: value for key, value in self._held_out_numbers(found).items() if key[:7] != "reward/"}
            trainer.log.write("evaluation", trainer.state.step, numbers | {"protocol": name} | costs)
        trainer.accelerator.wait_for_everyone()
        return found

    @property
    def _model(self) -> str:
        args = self.trainer.args
        return " + ".join(filter(None, (args.pretrained_model_name_or_path, args.lora_path)))

    def _taken(self, path: Path) -> dict[str, Any]:
        """The evaluation before training of another run, once it is known to answer the same question."""
        args, found = self.trainer.args, json.loads(path.read_text(encoding="utf-8"))
        check_same_protocol(
            found,
            {
                "model": self._model,
                "negative_prompt": args.negative_prompt,
                "rewards": list(self.trainer.eval_rewards),
                "num_inference_steps": self.steps,
                "images_per_prompt": args.eval_images_per_prompt,
                "images_per_scale": choosing_images(
                    args.eval_guidance_scales, args.eval_images_per_prompt, args.eval_images_per_scale
                ),
                "guidance": [str(float(scale)) for scale in args.eval_guidance_scales],
                "prompts": [record["prompt"] for record in self.trainer.eval_records],
                "seeds": evaluation_seeds(0, len(self.trainer.eval_records) * args.eval_images_per_prompt),
            },
            path,
        )
        if self.trainer.accelerator.is_main_process:
            _write(self.trainer.folder / "evaluation" / "before.json", found)
            self._pictures("before", found["best_guidance"])
        self.trainer.accelerator.wait_for_everyone()
        return dict(found)

    def _measure(
        self,
        scales: list[float],
        images: int,
        measures: Mapping[str, Reward] | None = None,
        images_per_scale: int | None = None,
    ) -> dict[str, Any]:
        trainer = self.trainer
        with trainer.clock.phase("evaluation"):
            return evaluate_policy(
                trainer.policy,
                trainer.eval_records,
                trainer.eval_rewards | dict(measures or {}),
                guidance_scales=scales,
                num_inference_steps=self.steps,
                images_per_prompt=images,
                images_per_scale=images_per_scale,
                batch_size=trainer.args.per_device_train_batch_size,
                negative_prompt=trainer.args.negative_prompt,
                progress=trainer.accelerator.is_main_process,
                accelerator=trainer.accelerator,
            )

    def _costs(self) -> dict[str, Any]:
        """Model evaluations and seconds of evaluations alone; what else is pending belongs to the next step."""
        counts, seconds = self.trainer.policy.meter.counts, self.trainer.clock.seconds
        own = {name: counts.pop(name) for name in list(counts) if name.endswith("/evaluation")}
        own = setup.summed(self.trainer.accelerator, own)
        return own | {"seconds/evaluation": round(seconds.pop("evaluation", 0.0), 4)}

    @torch.no_grad()
    def _pictures(self, name: str, guidance: float) -> None:
        """A grid of the same prompts and seeds each time."""
        trainer = self.trainer
        records = picture_records(trainer.eval_records)
        prompts = [record["prompt"] for record in records]
        seeds = [noise_key(index) & 0x7FFFFFFF for index in range(len(records))]
        plan = evaluation_plan(trainer.policy.schedule(self.steps), guidance)
        size, negative = trainer.args.per_device_train_batch_size, trainer.args.negative_prompt
        parts = []
        with trainer.policy.meter.phase("evaluation"), trainer.clock.phase("evaluation"):
            for start in range(0, len(prompts), size):
                some = slice(start, start + size)
                out = rollout(trainer.policy, plan, prompts[some], seeds[some], negative_prompt=negative)
                parts.append(decoded(out).cpu())
        folder = trainer.folder / "images"
        folder.mkdir(parents=True, exist_ok=True)
        image_grid(torch.cat(parts), COLUMNS).save(folder / f"{name}.png")
        _write(folder / "samples.json", {"columns": COLUMNS, "prompts": prompts, "seeds": seeds})


def check_same_protocol(found: Mapping[str, Any], asked: Mapping[str, Any], path: Path) -> None:
    """Refuse an evaluation that was made otherwise than this run would make it.

    Args:
        found: content of `evaluation/before.json` of another run.
        asked: model (by name), negative prompt, rewards, steps, images per prompt and per scale, guidance scales,
            prompts and seeds.
        path: where it came from.

    Raises:
        ValueError: one of them differs.
    """
    given = dict(found) | {
        "images_per_scale": found.get("images_per_scale", found.get("images_per_prompt")),
        "guidance": list(found.get("guidance", {})),
        "prompts": [line["prompt"] for line in found.get("prompts", [])],
        "rewards": [name for line in found.get("prompts", [])[:1] for name in line["rewards"]],
    }
    for key, value in asked.items():
        if given.get(key) != value:
            shown = (
                f"other {key}" if key in ("prompts", "seeds") else f"{key} = {given.get(key)!r}, and this run {value!r}"
            )
            raise ValueError(f"eval_before = {path} has {shown}: leave eval_before out to evaluate anew")


def picture_records(records: list[Record]) -> list[Record]:
    """The first few prompts of each task, distinct ones first."""
    taken: dict[str, dict[str, Record]] = {}
    for record in records:
        group = taken.setdefault(str(record["metadata"].get("tag", "all")), {})
        if len(group) < PICTURES_PER_TASK:
            group.setdefault(record["prompt"], record)
    return [record for group in taken.values() for record in group.values()]


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_suffix(".tmp")  # a kill in the middle must not leave half a file under the name
    whole.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")
    whole.replace(path)
