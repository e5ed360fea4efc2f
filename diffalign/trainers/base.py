"""The loop that every method runs in: model, optimisation, EMA, reference, checkpoints, logs, evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm

from diffalign.config import RunConfig, converted, save_config
from diffalign.data.prompts import read_prompts
from diffalign.models import (
    Reference,
    load_trainable_state,
    save_trained,
    trainable_parameters,
    trainable_state,
)
from diffalign.rewards import Reward
from diffalign.trainers.checks.embeddings import embed_all
from diffalign.trainers.checks.preflight import require
from diffalign.trainers.method import Method
from diffalign.trainers.run import callbacks as hooks
from diffalign.trainers.run import checkpoints, results, setup, trackers, weights
from diffalign.trainers.run.batch import Batch, Update
from diffalign.trainers.run.callbacks import Callback, TrainOutput
from diffalign.trainers.run.clock import Clock
from diffalign.trainers.run.evaluations import Evaluations
from diffalign.trainers.run.fingerprint import check_unchanged, fingerprints
from diffalign.trainers.run.folder import RunFolder
from diffalign.trainers.run.interrupt import StopRequest, graceful_interrupt, stopping
from diffalign.trainers.run.lock import FailureOfOne, run_lock
from diffalign.trainers.run.log import RunLog
from diffalign.trainers.run.optimisation import Optimisation, StepResult
from diffalign.trainers.run.skips import skip_cause
from diffalign.trainers.run.state import TrainerState, check_same_run
from diffalign.trainers.run.watchdog import Watchdog

RewardSource = str | Callable[..., Any] | Reward


class BaseTrainer(Method):
    """Trains a policy; the method, a subclass, says what a batch is and what its loss is (see `Method`).

    Args:
        model: a diffusers pipeline, an adapter, or a name, folder or hub id; default as args say.
        args: the run configuration: a `Config` of this method, a plain `RunConfig`, or a mapping of keys.
        reward_funcs: rewards to optimise as names, "file.py:function", callables (images, prompts, metadata) -> scores,
            or Reward objects; default args.reward_funcs.
        train_dataset: records, or a path or name as the key train_dataset has it; default args.train_dataset.
        eval_dataset: held-out prompts, in the same forms; default args.eval_dataset.
        peft_config: a peft LoraConfig, instead of the lora_* keys.
        callbacks: code that runs at points of the loop.

    Raises:
        ValueError: anything in model, data, rewards or configuration that could not train, before any work is done.
    """

    def __init__(
        self,
        model: Any = None,
        args: RunConfig | dict[str, Any] | None = None,
        reward_funcs: Sequence[RewardSource] | RewardSource | None = None,
        train_dataset: Sequence[Any] | str | None = None,
        eval_dataset: Sequence[Any] | str | None = None,
        peft_config: Any = None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.args = setup.with_names(converted(args, self.Config), model, reward_funcs)
        trackers.check_trackers(self.args.report_to)
        self.records = self.read(train_dataset)
        if not self.records:
            raise ValueError("there is nothing to train on: give train_dataset, as records or as the key train_dataset")
        limit = self.args.max_eval_samples
        self.eval_records = setup.records(read_prompts, eval_dataset, self.args.eval_dataset, limit)
        self.accelerator = Accelerator(
            cpu=not torch.accelerator.is_available(),  # else processes launched on a CPU would not find each other
            mixed_precision=self.args.mixed_precision,
            log_with=list(self.args.report_to) or None,
            project_dir=self.args.output_dir,
        )
        self.rewards, self.eval_rewards = setup.rewards(reward_funcs, self.args, self.accelerator.device)
        self.setup_data()
        self.policy = setup.load_model(model, self.args, self.accelerator)
        by_name = model is None or isinstance(model, (str, Path))
        self.loaded_from = self.args.pretrained_model_name_or_path if by_name else None
        sources = setup.listed(reward_funcs or self.args.trained_rewards)
        self.fingerprints = fingerprints(self.policy, self.records, self.rewards, sources)
        self.args = weights.make_trainable(self.policy, self.args, peft_config)
        self.reference = Reference(self.policy, needed=self.needs_reference)
        self.parameters = trainable_parameters(self.policy)
        self.total_steps = -(-self.args.max_train_steps // self.updates_per_batch) * self.updates_per_batch
        self.optimisation = Optimisation(self.parameters, self.args, self.total_steps, self.accelerator)
        self.ema = weights.make_ema(self.parameters, self.args)
        self.state, self.clock = TrainerState(), Clock()
        self.folder = Path(self.args.output_dir)
        self.log = RunLog(self.folder, self.accelerator)
        self.watchdog = Watchdog(
            self.args.watchdog, self.counted_rewards, list(self.eval_rewards), self.args.eval_steps
        )
        self.evaluations = Evaluations(
            self.policy, self.eval_records, self.eval_rewards, self.args, self.accelerator, self.folder, self.log,
            self.clock, self.watchdog,
        )  # fmt: skip
        self.callbacks = list(callbacks)
        self.ended = False
        embed_all(self.policy, [*self.records, *self.eval_records], self.args.negative_prompt)
        self.setup_model()

    # --- the loop ----------------------------------------------------------------------------------------------------

    def train(self, resume_from_checkpoint: str | bool | None = None) -> TrainOutput:
        """Train to the end of the batch in which max_train_steps is reached.

        Args:
            resume_from_checkpoint: checkpoint folder, its name in the run folder, "latest" (or True), or "auto" (the
                newest whole one, or the beginning when there is none); default args.resume_from_checkpoint.

        Raises:
            ValueError: a run that cannot learn (preflight), a damaged checkpoint or one of another model or
                configuration, a folder that another run has.
            KeyboardInterrupt: after Ctrl-C, once the batch is finished and saved.
            SystemExit: after SIGTERM or SIGHUP, in the same way.
            RuntimeError: training went wrong; what was reached is saved.
        """
        if self.state.step:
            raise ValueError(
                f"this trainer has made {self.state.step} steps already: make a new Trainer, and resume it from a "
                "checkpoint to go on"
            )
        resume = resume_from_checkpoint or self.args.resume_from_checkpoint
        with FailureOfOne(self.accelerator, lambda: self.state.step), run_lock(self.folder, self.accelerator):
            folder = RunFolder(self.folder, self.accelerator)
            try:
                self._begin(folder, "latest" if resume is True else resume)
                with graceful_interrupt() as request:
                    self._loop(request, folder)
            finally:
                folder.restore()
            return self._finish()

    def _loop(self, request: StopRequest, folder: RunFolder) -> None:
        bar = tqdm(
            total=self.total_steps,
            initial=self.state.step,
            desc="train",
            unit="step",
            disable=not self.accelerator.is_main_process,
        )
        self._call("on_train_begin")
        while self.state.step < self.total_steps and not self.ended:
            batch = self.collect(self.state.batch)
            if self.state.batch == 0:
                self._preflight(batch)
                self._evaluate_untrained()
                bar.unpause()  # its rate is that of training steps alone
            self._commit(folder)
            batch = self.prepare(batch)
            self.update(batch, bar)
            self.state.batch += 1
            number = self._between(request)
            bar.unpause()
            if number:
                raise stopping(number, f"stopped at step {self.state.step}; resume_from_checkpoint latest goes on")
        bar.close()

    def update(self, batch: Batch, bar: Any = None) -> None:
        """Every optimiser step that a prepared batch is used for."""
        updates = batch.updates()
        if bar is not None:
            bar.set_postfix(self.progress(batch), refresh=False)
        for number in range(self.updates_per_batch):
            self._update(batch, updates[number % len(updates)], fresh=number == 0)
            if bar is not None:
                bar.update(1)
        self.finish(batch)

    def _update(self, batch: Batch, update: Update, *, fresh: bool) -> None:
        dropout = weights.dropout(self.policy, self.args.seed, self.state.step)
        usable = self.usable(batch, update.rows)
        with self.clock.phase("train"), self.policy.meter.phase("train"), dropout:
            if usable:
                self.backward(batch, update)
            rate = self.optimisation.learning_rate
            result = self.optimisation.step() if usable else self.optimisation.skip_step()
        self.state.step += 1
        self._count(result, batch)
        numbers = self.batch_metrics(batch) | self.metrics(batch, update.rows)
        numbers |= {"grad_norm": result.grad_norm, "lr": rate, "images": batch.samples if fresh else 0}
        written = self.log.write("step", self.state.step, numbers | self._costs())
        self._call("on_step_end", self.state.step, written)
        if self.state.skipped > self.args.max_skipped_steps:
            raise RuntimeError(
                f"{self._skip_text(result, batch)}; {self.state.skipped} steps in a row were skipped, more than "
                "max_skipped_steps allows"
            )

    def backward(self, batch: Batch, update: Update) -> None:
        """Add the gradient of an update, as far as this process has its micro-batches."""
        for number in update.micro_batches:
            if number in batch.mine:
                for loss in self.losses(batch, number, update.rows):
                    self.optimisation.backward(loss)

    def _count(self, result: StepResult, batch: Batch) -> None:
        """After a step: averages, or a warning about the step that was skipped, on every process alike."""
        if not result.made:
            self.state.skipped += 1
            self.state.skipped_total += 1
            self.log.write("warning", self.state.step, {"message": self._skip_text(result, batch)})
            return
        self.state.skipped = 0
        if self.ema is not None and self.state.step % self.args.ema_update_every == 0:
            self.ema.step(self.parameters)

    def _skip_text(self, result: StepResult, batch: Batch) -> str:
        names = [name for name, p in self.policy.denoiser.named_parameters() if p.requires_grad]
        return f"step {self.state.step}: skipped, {skip_cause(result, names, self.unusable_reason(batch))}"

    # --- between batches ---------------------------------------------------------------------------------------------

    def _preflight(self, batch: Batch) -> None:
        """A run that cannot learn stops here, before the long evaluation."""
        if self.args.preflight:
            with self.policy.meter.phase("preflight"):
                require(self, batch)

    def _evaluate_untrained(self) -> None:
        if self.args.compare:
            self.state.guidance = self.evaluations.before()
        if self.watchdog.active:
            self._evaluate_now()  # later evaluations are compared with it

    def _evaluate_now(self) -> None:
        numbers = self.evaluations.while_training(self.state.step, self.state.guidance)
        self.state.watchdog = self.watchdog.watch.state_dict()
        self._call("on_evaluate", self.state.step, numbers)

    def _between(self, request: StopRequest) -> int:
        """After each batch: evaluation and checkpoint when one fell due in it, or at a stop.

        Returns the signal that asked to stop, or 0. It is read once, after the evaluation: one that comes later ends
        the next batch instead.
        """
        if self._due(self.args.eval_steps) and self.eval_records and self.eval_rewards:
            with self.averaged():
                self._evaluate_now()
            self.ended = self.ended or self.watchdog.stop
        self.ended = setup.any_process(self.accelerator, self.ended)
        stop = setup.agreed_stop(self.accelerator, request.number)
        last = self.state.step >= self.total_steps or self.ended
        if stop or last or self._due(self.checkpointing_steps):
            self.save_checkpoint()
        return stop

    @property
    def checkpointing_steps(self) -> int:
        """Optimiser steps between checkpoints; 0 = only at the end."""
        given = self.args.checkpointing_steps
        return max(self.total_steps // 10, 1) if given is None else given

    def _due(self, every: int) -> bool:
        return every > 0 and self.state.step // every > (self.state.step - self.updates_per_batch) // every

    def _call(self, name: str, *values: Any) -> None:
        self.ended = hooks.call(self.callbacks, name, self, *values) or self.ended

    def _costs(self) -> dict[str, Any]:
        """Model evaluations and seconds since the last step; those of `collect` are in its first step."""
        return setup.summed(self.accelerator, self.policy.meter.drain()) | self.clock.drain()

    # --- beginning and end -------------------------------------------------------------------------------------------

    def _begin(self, folder: RunFolder, resume: str | None) -> None:
        """Everything that can be refused is refused before the run folder is touched."""
        folder.recover()
        found = checkpoints.find_checkpoint(self.folder, resume) if resume else None
        saved = checkpoints.load_checkpoint(found) if found else None
        if found and saved:
            self._check_resumed(found, saved[2])
        folder.check(resume=found, overwrite=self.args.overwrite_output_dir or resume == "auto")
        self.accelerator.wait_for_everyone()  # each process has looked before the main one moves files
        folder.claim(resume=found)
        if found and saved:
            self.restore(*saved)
            self.log.truncate(self.state.step)
            self._commit(folder)
            if self.accelerator.is_main_process:
                checkpoints.sweep(self.folder)  # a run that was killed after its last step saves no more
        trackers.start_trackers(self.accelerator, self.args, self.state.step)

    def _commit(self, folder: RunFolder) -> None:
        """The run has passed its checks: the run that it replaces is removed, its configuration written."""
        if not folder.committed:
            folder.commit()
            if self.accelerator.is_main_process:
                save_config(self.args, self.folder / "config.yaml")

    def _check_resumed(self, path: Path, state: dict[str, Any]) -> None:
        check_same_run(asdict(self.args), state["config"], asdict(self.Config()), path)
        check_unchanged(state.get("fingerprints", {}), self.fingerprints, path)
        if self.args.compare and not self.evaluations.has_before:
            raise ValueError(
                f"compare is on, but {self.folder} holds no evaluation from before training (started without compare, "
                "or in another folder): resume with compare: false"
            )

    def _finish(self) -> TrainOutput:
        with self.averaged():
            if self.accelerator.is_main_process:
                self.save_model()
            self._call("on_train_end")
            if self.args.compare:
                self.evaluations.after(self.state.step)
        page = self.folder / "report.html"
        if self.accelerator.is_main_process:
            print(results.write_results(self.folder, self.args, self.policy))
            if self.evaluations.headline:
                print(self.evaluations.headline)
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
        if self.state.skipped >= self.updates_per_batch:
            raise RuntimeError(
                f"the last {self.state.skipped} steps changed nothing (see the warnings in {self.log.path}); the "
                "weights before them are saved"
            )
        return TrainOutput(self.state.step, self.log.last, self.evaluations.comparison, page)

    def averaged(self) -> AbstractContextManager[None]:
        """Context in which the policy has its averaged weights, when there are any."""
        return weights.averaged(self.ema, self.parameters)

    def evaluate(
        self, guidance_scales: Sequence[float] | None = None, images_per_prompt: int | None = None
    ) -> dict[str, Any]:
        """Score the present policy (averaged weights) on the held-out prompts; JSON-ready, nothing is written.

        Args:
            guidance_scales: scales to try; default args.eval_guidance_scales.
            images_per_prompt: default args.eval_images_per_prompt.
        """
        with self.averaged():
            return self.evaluations.measure(guidance_scales, images_per_prompt)

    def save_model(self, output_dir: str | Path | None = None) -> Path:
        """Write the trained weights for diffusers: `pytorch_lora_weights.safetensors`, or the whole pipeline."""
        return save_trained(self.policy, Path(output_dir) if output_dir else self.folder)

    def push_to_hub(self, repo_id: str, *, private: bool = False) -> str:
        """Upload the run's weights, configuration and model card; the token comes from the environment alone."""
        if not self.accelerator.is_main_process:
            return repo_id
        return results.push(self.folder, self.args, self.policy, repo_id, private=private)

    # --- checkpoints -------------------------------------------------------------------------------------------------

    def save_checkpoint(self) -> None:
        """Write a checkpoint at the end of a batch (main process), keeping checkpoints_total_limit."""
        path = self.folder / f"checkpoint-{self.state.step}"
        if self.accelerator.is_main_process:
            path = checkpoints.save_checkpoint(self.folder, self.state.step, **self.snapshot())
            checkpoints.prune_checkpoints(self.folder, self.args.checkpoints_total_limit)
        self.accelerator.wait_for_everyone()
        self._call("on_save", path)

    def snapshot(self) -> dict[str, Any]:
        """Everything a run is, as `save_checkpoint` takes it: weights, tensors, state."""
        tensors = {"optimisation": self.optimisation.state_dict(), "rng": torch.get_rng_state(), **self.extra_state()}
        if self.ema is not None:
            tensors["ema"] = self.ema.state_dict()
        state = {"trainer": asdict(self.state), "config": asdict(self.args), "fingerprints": self.fingerprints}
        return {"weights": trainable_state(self.policy), "tensors": tensors, "state": state}

    def restore(self, weights: dict[str, Tensor], tensors: dict[str, Any], state: dict[str, Any]) -> None:
        """Put a `snapshot` back."""
        load_trainable_state(self.policy, weights)
        self.optimisation.load_state_dict(tensors["optimisation"])
        torch.set_rng_state(tensors["rng"])
        if self.ema is not None:
            self.ema.load_state_dict(tensors["ema"])
            self.ema.to(self.accelerator.device)
        self.load_extra_state(tensors)
        self.state.load(state["trainer"])
        self.watchdog.watch.load_state_dict(self.state.watchdog)
