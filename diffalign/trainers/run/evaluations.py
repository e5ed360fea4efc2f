"""Evaluations before, while and after training, and the pictures that go with them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from diffalign.config import RunConfig
from diffalign.models import Adapter
from diffalign.report import compare, headline, image_grid
from diffalign.rewards.base import Reward
from diffalign.sampling import noise_key, rollout
from diffalign.trainers.run.batch import Record
from diffalign.trainers.run.clock import Clock
from diffalign.trainers.run.evaluation import (
    choosing_images,
    decoded,
    evaluate_policy,
    evaluation_plan,
    evaluation_seeds,
)
from diffalign.trainers.run.log import RunLog
from diffalign.trainers.run.setup import summed
from diffalign.trainers.run.trackers import log_image
from diffalign.trainers.run.watchdog import IMAGES, Watchdog

PICTURES_PER_TASK, COLUMNS = 4, 8


class Evaluations:
    """Evaluates the policy of a run; every process evaluates its share, the main one writes.

    Args:
        policy: the model.
        records: held-out prompts.
        rewards: measured rewards, the target first.
        args: the run configuration.
        accelerator: the processes.
        folder: the run folder.
        log: its log.
        clock: its clock.
        watchdog: looks at evaluations while training.
    """

    def __init__(
        self,
        policy: Adapter,
        records: Sequence[Record],
        rewards: Mapping[str, Reward],
        args: RunConfig,
        accelerator: Accelerator,
        folder: Path,
        log: RunLog,
        clock: Clock,
        watchdog: Watchdog,
    ) -> None:
        self.policy, self.records, self.rewards, self.args = policy, list(records), dict(rewards), args
        self.accelerator, self.folder, self.log, self.clock = accelerator, folder, log, clock
        self.watchdog = watchdog
        self.comparison: dict[str, Any] | None = None

    @property
    def steps(self) -> int:
        """ODE steps of every evaluation."""
        return self.args.eval_num_inference_steps or self.args.num_inference_steps

    @property
    def has_before(self) -> bool:
        """True when the folder holds an evaluation of the untrained policy."""
        return (self.folder / "evaluation" / "before.json").is_file()

    @property
    def headline(self) -> str | None:
        """The gain in one line, once before and after were compared."""
        return headline(self.comparison) if self.comparison else None

    def before(self) -> float:
        """Evaluate the untrained policy at every guidance scale, or take `eval_before`; returns the best scale."""
        found = self._reuse(Path(self.args.eval_before)) if self.args.eval_before else self._protocol("before", 0)
        return float(found["best_guidance"])

    def after(self, step: int) -> None:
        """Evaluate the trained policy the same way and compare, each at its own best guidance scale."""
        found = self._protocol("after", step)
        if not self.accelerator.is_main_process:
            return
        folder = self.folder / "evaluation"
        before = json.loads((folder / "before.json").read_text(encoding="utf-8"))
        self.comparison = compare(before, found)
        write_json(folder / "comparison.json", self.comparison)

    def while_training(self, step: int, best_guidance: float | None) -> dict[str, Any]:
        """Evaluation for the curve on few images per prompt, a line for each of two guidance scales.

        The scale that was best before training, and the one that is trained, at which the watchdog looks too.

        Returns:
            The numbers at the trained scale.
        """
        trained = self.args.guidance_scale
        pointwise = all(reward.scope == "pointwise" for reward in self.rewards.values())
        few = IMAGES if self.watchdog.active else 1
        images = few if pointwise else max(self.args.eval_images_per_prompt, few)
        numbers: dict[str, Any] = {}
        for scale in dict.fromkeys([best_guidance or trained, trained]):
            found = self._measure([scale], images, self.watchdog.measures if scale == trained else None)
            if scale == trained and self.accelerator.is_main_process:
                self.pictures(f"step-{step:06d}", trained, step)
            numbers = self._held_out_numbers(found) | self._costs()
            if self.accelerator.is_main_process:
                warnings: list[dict[str, Any]] = []
                if scale == trained:
                    own, warnings = self.watchdog.observe(found["prompts"], step)
                    numbers |= own
                self.log.write("evaluation", step, numbers)
                for warning in warnings:
                    self.log.write("warning", step, warning)
            self.accelerator.wait_for_everyone()
        return numbers

    def measure(
        self, guidance_scales: Sequence[float] | None = None, images_per_prompt: int | None = None
    ) -> dict[str, Any]:
        """The present policy by the full protocol, or at the given scales; JSON-ready, nothing is written.

        Raises:
            ValueError: the run has no held-out prompts or nothing to measure.
        """
        if not self.records or not self.rewards:
            raise ValueError(
                "evaluation needs held-out prompts (eval_dataset) and rewards (reward_funcs, eval_rewards)"
            )
        found = self._measure(
            list(guidance_scales or self.args.eval_guidance_scales),
            images_per_prompt or self.args.eval_images_per_prompt,
        )
        self._costs()
        return found

    def _held_out_numbers(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Scores of one evaluation: overall, by task, and the mean of each reward."""
        table = found["guidance"][str(float(found["best_guidance"]))]
        numbers: dict[str, Any] = {"guidance": found["best_guidance"], "overall": table["overall"]}
        numbers |= {f"task/{task}": value for task, value in table["tasks"].items()}
        for name in self.rewards:
            values = [p["rewards"][name] for p in found["prompts"] if p["rewards"][name] is not None]
            numbers[f"reward/{name}/mean"] = sum(values) / len(values) if values else float("nan")
        return numbers

    def _protocol(self, name: str, step: int) -> dict[str, Any]:
        args = self.args
        found = self._measure(
            args.eval_guidance_scales, args.eval_images_per_prompt, images_per_scale=args.eval_images_per_scale
        )
        found |= {"step": step, "model": self._model, "negative_prompt": args.negative_prompt}
        if self.accelerator.is_main_process:
            write_json(self.folder / "evaluation" / f"{name}.json", found)
            self.pictures(name, found["best_guidance"], step)
        costs = self._costs()
        if self.accelerator.is_main_process:
            numbers = {key: value for key, value in self._held_out_numbers(found).items() if key[:7] != "reward/"}
            self.log.write("evaluation", step, numbers | {"protocol": name} | costs)
        self.accelerator.wait_for_everyone()
        return found

    @property
    def _model(self) -> str:
        return " + ".join(filter(None, (self.args.pretrained_model_name_or_path, self.args.lora_path)))

    def _reuse(self, path: Path) -> dict[str, Any]:
        """The evaluation before training of another run, once it is known to follow the same protocol."""
        args, found = self.args, json.loads(path.read_text(encoding="utf-8"))
        check_same_protocol(
            found,
            {
                "model": self._model,
                "negative_prompt": args.negative_prompt,
                "rewards": list(self.rewards),
                "num_inference_steps": self.steps,
                "images_per_prompt": args.eval_images_per_prompt,
                "images_per_scale": choosing_images(
                    args.eval_guidance_scales, args.eval_images_per_prompt, args.eval_images_per_scale
                ),
                "guidance": [str(float(scale)) for scale in args.eval_guidance_scales],
                "prompts": [record["prompt"] for record in self.records],
                "seeds": evaluation_seeds(0, len(self.records) * args.eval_images_per_prompt),
            },
            path,
        )
        if self.accelerator.is_main_process:
            write_json(self.folder / "evaluation" / "before.json", found)
            self.pictures("before", found["best_guidance"], 0)
        self.accelerator.wait_for_everyone()
        return dict(found)

    def _measure(
        self,
        scales: list[float],
        images: int,
        measures: Mapping[str, Reward] | None = None,
        images_per_scale: int | None = None,
    ) -> dict[str, Any]:
        with self.clock.phase("evaluation"):
            return evaluate_policy(
                self.policy,
                self.records,
                self.rewards | dict(measures or {}),
                guidance_scales=scales,
                num_inference_steps=self.steps,
                images_per_prompt=images,
                images_per_scale=images_per_scale,
                batch_size=self.args.per_device_train_batch_size,
                negative_prompt=self.args.negative_prompt,
                progress=self.accelerator.is_main_process,
                accelerator=self.accelerator,
            )

    def _costs(self) -> dict[str, Any]:
        """Model evaluations and seconds of evaluations alone; the other phases belong to the next step."""
        counts, seconds = self.policy.meter.counts, self.clock.seconds
        own = {name: counts.pop(name) for name in list(counts) if name.endswith("/evaluation")}
        own = summed(self.accelerator, own)
        return own | {"seconds/evaluation": round(seconds.pop("evaluation", 0.0), 4)}

    @torch.no_grad()
    def pictures(self, name: str, guidance: float, step: int) -> None:
        """A grid of the same prompts and seeds each time, in the run folder and the trackers (main process)."""
        prompts = self.args.validation_prompts or [record["prompt"] for record in picture_records(self.records)]
        if not prompts:
            return
        seeds = [noise_key(index) & 0x7FFFFFFF for index in range(len(prompts))]
        grid = image_grid(self._draw(prompts, seeds, guidance), COLUMNS)
        folder = self.folder / "images"
        folder.mkdir(parents=True, exist_ok=True)
        grid.save(folder / f"{name}.png")
        write_json(folder / "samples.json", {"columns": COLUMNS, "prompts": prompts, "seeds": seeds})
        pixels = torch.frombuffer(bytearray(grid.convert("RGB").tobytes()), dtype=torch.uint8)
        picture = pixels.view(grid.height, grid.width, 3).permute(2, 0, 1) / 255
        log_image(self.accelerator, f"validation/guidance {guidance:g}", picture, step)

    def _draw(self, prompts: Sequence[str], seeds: Sequence[int], guidance: float) -> Tensor:
        plan = evaluation_plan(self.policy.schedule(self.steps), guidance)
        size, images = self.args.per_device_train_batch_size, []
        with self.policy.meter.phase("evaluation"), self.clock.phase("evaluation"):
            for start in range(0, len(prompts), size):
                some = slice(start, start + size)
                negative = self.args.negative_prompt
                out = rollout(self.policy, plan, prompts[some], seeds[some], negative_prompt=negative)
                images.append(decoded(out).cpu())
        return torch.cat(images)


def check_same_protocol(found: Mapping[str, Any], wanted: Mapping[str, Any], path: Path) -> None:
    """Refuse an evaluation that was made otherwise than this run would make it.

    Args:
        found: content of `evaluation/before.json` of another run.
        wanted: model (by name), negative prompt, rewards, steps, images per prompt and per scale, guidance scales,
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
    for key, value in wanted.items():
        if given.get(key) != value:
            shown = (
                f"other {key}" if key in ("prompts", "seeds") else f"{key} = {given.get(key)!r}, and this run {value!r}"
            )
            raise ValueError(f"eval_before = {path} has {shown}: leave eval_before out to evaluate anew")


def picture_records(records: Sequence[Record]) -> list[Record]:
    """The first few prompts of each task, distinct ones first."""
    taken: dict[str, dict[str, Record]] = {}
    for record in records:
        group = taken.setdefault(str(record["metadata"].get("tag", "all")), {})
        if len(group) < PICTURES_PER_TASK:
            group.setdefault(record["prompt"], record)
    return [record for group in taken.values() for record in group.values()]


def write_json(path: Path, content: Any) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_suffix(".tmp")  # a kill in the middle must not leave half a file under the name
    whole.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")
    whole.replace(path)
