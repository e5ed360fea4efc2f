"""What every trained method shares: models, data, rewards, the loop, checkpoints, logs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm

from diffalign.config import RunConfig, check_ranges, save_config
from diffalign.data.prompts import read_prompts
from diffalign.models import Adapter, Reference, WeightCopy, adapt, load_policy, trainable_parameters
from diffalign.rewards import Pending
from diffalign.sampling import StepPlan, rollout
from diffalign.trainers import setup, trained
from diffalign.trainers.batch import Batch, MicroBatch
from diffalign.trainers.checkpoints import find_checkpoint
from diffalign.trainers.checks import Check
from diffalign.trainers.clock import Clock
from diffalign.trainers.embeddings import embed_all
from diffalign.trainers.interrupt import StopRequest, graceful_interrupt, stopping
from diffalign.trainers.optimisation import Optimisation
from diffalign.trainers.preflight import require
from diffalign.trainers.results import Results
from diffalign.trainers.reward_flow import RewardFlow, combination
from diffalign.trainers.rollout_spec import RolloutSpec, sample_spec
from diffalign.trainers.run_lock import FailureOfOne, run_lock
from diffalign.trainers.run_log import RunLog
from diffalign.trainers.skips import skipped
from diffalign.trainers.state import TrainerState
from diffalign.trainers.watchdog import Watchdog

RewardSource = str | Callable[..., Any]


class BaseTrainer(ABC):
    """Trains a policy on rewards of its own images.

    A method overrides `plan`, `feedback` and `losses`, nothing else; `samples_with_old` says that roll-outs come from
    the averaged (old) policy.

    Args:
        model: a diffusers pipeline, an adapter, or a name, folder or hub id; default as args say.
        args: the run configuration.
        reward_funcs: rewards as names, "file.py:function", callables (images, prompts, metadata) -> scores, or Reward
            objects; default args.reward_funcs.
        train_dataset: records {"prompt", "metadata"} or plain strings; default read from args.train_dataset.
        eval_dataset: held-out records; default read from args.eval_dataset.
        peft_config: a peft LoraConfig, instead of the lora_* keys.

    Raises:
        ValueError: anything in model, data, rewards or configuration that could not train, before any work is done.
    """

    samples_with_old: ClassVar[bool] = False

    def __init__(
        self,
        model: Any = None,
        args: RunConfig | None = None,
        reward_funcs: Sequence[RewardSource] | RewardSource | None = None,
        train_dataset: Sequence[Any] | None = None,
        eval_dataset: Sequence[Any] | None = None,
        peft_config: Any = None,
    ) -> None:
        self.args = setup.with_names(args or RunConfig(), model, reward_funcs)
        check_ranges(self.args)
        setup.check_trackers(self.args.report_to)
        self.records = setup.records(read_prompts, train_dataset, self.args.train_dataset, self.args.max_train_samples)
        if not self.records:
            raise ValueError("there is nothing to train on: give train_dataset, as records or as the key train_dataset")
        self.eval_records = setup.records(
            read_prompts, eval_dataset, self.args.eval_dataset, self.args.max_eval_samples
        )
        self.steps_per_rollout = self._steps_per_rollout()
        self.accelerator = Accelerator(
            cpu=not torch.accelerator.is_available(),  # else processes launched on a CPU would not find each other
            mixed_precision=self.args.mixed_precision,
            log_with=list(self.args.report_to) or None,
            project_dir=self.args.output_dir,
        )
        self.rewards, self.eval_rewards = setup.rewards(reward_funcs, self.args, self.accelerator.device)
        self.combination = combination(self.args, self.rewards, self.records)
        self.policy = self._load(model)
        self.args = trained.make_trainable(self.policy, self.args, peft_config)
        compared = bool(self.combination.reference_samples)
        self.reference = Reference(self.policy, needed=self.args.beta > 0 or compared)
        self.parameters = trainable_parameters(self.policy)
        rollouts = -(-self.args.max_train_steps // self.steps_per_rollout)
        self.total_steps = rollouts * self.steps_per_rollout
        self.optimisation = Optimisation(self.parameters, self.args, self.total_steps, self.accelerator)
        self.ema = trained.make_ema(self.parameters, self.args)
        self.old = WeightCopy(self.policy) if self.samples_with_old or self.args.beta_old > 0 else None
        self.state = TrainerState()
        self.clock = Clock()
        self.folder = Path(self.args.output_dir)
        self.log = RunLog(self.folder, self.accelerator)
        self.results = Results(self)
        self.flow = RewardFlow(self)
        self.watchdog = Watchdog(self)
        self.ended = False
        embed_all(self)
        self.plan(0)  # a window or dynamics that does not fit the model's schedule is an error now

    # --- what a method decides ---------------------------------------------------------------------------------------

    @abstractmethod
    def plan(self, index: int) -> StepPlan:
        """What roll-out `index` does at each step."""

    @abstractmethod
    def feedback(self, batch: Batch) -> Any:
        """What the rewards of a roll-out say about its samples (advantages, labels), equal on every process."""

    @abstractmethod
    def losses(self, batch: Batch, micro: MicroBatch, feedback: Any, chunk: Tensor) -> Iterator[Tensor]:
        """Terms of the update from one micro-batch; each is back-propagated before the next is computed.

        Args:
            batch: the roll-out.
            micro: one of its micro-batches.
            feedback: what `feedback` returned.
            chunk: (n,) global samples of this update, over which the terms of all micro-batches average.
        """

    def metrics(self, batch: Batch, feedback: Any, chunk: Tensor) -> dict[str, Any]:
        """Numbers of the update just made, for the log; the same on every process."""
        return {}

    def checks(self, batch: Batch) -> Iterable[Check]:
        """What the method itself has to prove on a roll-out before it may train."""
        return ()

    # --- the loop ----------------------------------------------------------------------------------------------------

    def train(self, resume_from_checkpoint: str | None = None) -> None:
        """Train to the end of the roll-out in which max_train_steps is reached.

        Args:
            resume_from_checkpoint: checkpoint folder, its name in the run folder, "latest", or "auto" (the newest whole
                one, or the beginning when there is none); default args.resume_from_checkpoint.

        Raises:
            ValueError: a run that cannot learn (preflight), a damaged checkpoint or one of another model or
                configuration, a folder that another run has.
            KeyboardInterrupt: after Ctrl-C, once the roll-out is finished and saved.
            SystemExit: after SIGTERM, in the same way; its status is 143.
        """
        resume = resume_from_checkpoint or self.args.resume_from_checkpoint
        with FailureOfOne(self), run_lock(self.folder, self.accelerator):
            self._begin(resume)
            with graceful_interrupt() as request:
                self._loop(request)
            self._finish()

    def _loop(self, request: StopRequest) -> None:
        bar = tqdm(
            total=self.total_steps,
            initial=self.state.step,
            desc="train",
            unit="step",
            disable=not self.accelerator.is_main_process,
        )
        while self.state.step < self.total_steps and not self.ended:
            batch = self.collect(self.state.rollout)
            if self.state.rollout == 0:
                self._before_the_first_update(batch)
            self.flow.check_failure_rate(batch)
            self.update(batch, bar)
            self.state.rollout += 1
            number = self._between(request)
            if number:
                raise stopping(number, f"stopped at step {self.state.step}; resume_from_checkpoint latest goes on")
        bar.close()

    def collect(self, index: int) -> Batch:
        """Roll out and score the samples of roll-out `index`; changes nothing."""
        listed, plan = sample_spec(self.args, self.records, index), self.plan(index)
        updates = listed.micro_batches(self.args.per_device_train_batch_size, self.args.updates_per_rollout)
        pieces = [roots for update in updates for roots in update]
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        mine: dict[int, MicroBatch] = {}
        pending: dict[int, Pending] = {}
        sampler = self.old.active() if self.old is not None and self.samples_with_old else nullcontext()
        with torch.no_grad(), sampler, self.clock.phase("rollout"), self.policy.meter.phase("rollout"):
            for number in range(rank, len(pieces), world):
                mine[number] = self._roll_out(listed, plan, pieces[number])
                if self.args.async_scoring:
                    pending[number] = self.flow.hand_over(listed, mine[number])
        with self.clock.phase("reward"):
            rewards = self.flow.gather(listed, mine, pending)
        return Batch(listed, plan, mine, rewards)

    def update(self, batch: Batch, bar: Any = None) -> None:
        """Every optimiser step that the samples of a roll-out are good for."""
        feedback = self.feedback(batch)
        updates = batch.spec.micro_batches(self.args.per_device_train_batch_size, self.args.updates_per_rollout)
        for _ in range(self.args.num_iterations):
            first = 0
            for pieces in updates:
                numbers, chunk = range(first, first + len(pieces)), batch.spec.sample_rows(torch.cat(pieces))
                self._update_once(batch, feedback, numbers, chunk)
                first += len(pieces)
                if bar is not None:
                    bar.update(1)
                    bar.set_postfix(reward=f"{self._mean_reward(batch):.3f}", refresh=False)
        if self.old is not None:
            self.old.average(trained.old_decay(self.args, self.state.step))

    def _update_once(self, batch: Batch, feedback: Any, numbers: Iterable[int], chunk: Tensor) -> None:
        dropout = trained.dropout(self.policy, self.args.seed, self.state.step)
        usable = bool(self.flow.usable(batch)[chunk].any())
        with self.clock.phase("train"), self.policy.meter.phase("train"), dropout:
            for number in numbers if usable else ():
                if number in batch.mine:
                    for loss in self.losses(batch, batch.mine[number], feedback, chunk):
                        self.optimisation.backward(loss)
            rate = self.optimisation.learning_rate
            result = self.optimisation.step() if usable else self.optimisation.skip_step()
        self.state.step += 1
        if not result.made:
            skipped(self, result, batch)
        elif self.ema is not None and self.state.step % self.args.ema_update_every == 0:
            self.ema.step(self.parameters)
        numbers_of_step = self.metrics(batch, feedback, chunk) | {"grad_norm": result.grad_norm, "lr": rate}
        numbers_of_rollout = {"rollout": self.state.rollout} | self.flow.numbers(batch)
        self.log.write("step", self.state.step, numbers_of_rollout | numbers_of_step | self._costs(batch))

    # --- pieces of the loop ------------------------------------------------------------------------------------------

    def _roll_out(self, listed: RolloutSpec, plan: StepPlan, roots: Tensor) -> MicroBatch:
        records = [listed.records[int(i)] for i in listed.record_of[roots]]
        trajectory = rollout(
            self.policy,
            plan,
            [record["prompt"] for record in records],
            [listed.seeds[int(i)] for i in roots],
            run_seed=self.args.seed,
            branches=[listed.branches[int(i)] for i in roots],
            negative_prompt=self.args.negative_prompt,
            keep_means=self.args.ratio == "guard" or self.args.trust_region == "kl_mask",
        )
        return MicroBatch(listed.sample_rows(roots), trajectory)

    def _before_the_first_update(self, batch: Batch) -> None:
        """A run that cannot learn stops here, before the long evaluation."""
        if self.args.preflight:
            with self.policy.meter.phase("preflight"):
                require(self, batch)
        if self.args.compare:
            self.results.before()
        if self.watchdog.active:
            self.results.evaluate_now()  # what later evaluations are held against

    def _between(self, request: StopRequest) -> int:
        """After each roll-out: evaluation and checkpoint when one fell due in it, or at a stop.

        Returns the signal that asked to stop, or 0. It is read once, after the evaluation: one that comes later ends
        the next roll-out instead.
        """
        if self._due(self.args.eval_steps) and self.eval_records:
            with self.averaged():
                self.results.evaluate_now()
            self.ended = setup.any_process(self.accelerator, self.watchdog.stop)
        stop = setup.agreed_stop(self.accelerator, request.number)
        last = self.state.step >= self.total_steps or self.ended
        if stop or last or self._due(self.args.checkpointing_steps):
            self.save_checkpoint()
        return stop

    def _due(self, every: int) -> bool:
        return every > 0 and self.state.step // every > (self.state.step - self.steps_per_rollout) // every

    def _mean_reward(self, batch: Batch) -> float:
        return float(torch.stack([values.nanmean() for values in batch.rewards.values()]).mean())

    def _costs(self, batch: Batch) -> dict[str, Any]:
        """Images, model evaluations and seconds since the last step; a roll-out's own stand in its first step."""
        counts = self.policy.meter.drain()
        fresh = any(name.endswith("/rollout") for name in counts)
        counts = setup.summed(self.accelerator, counts)
        return {"images": batch.spec.samples if fresh else 0} | counts | self.clock.drain()

    # --- beginning and end -------------------------------------------------------------------------------------------

    def _begin(self, resume: str | None) -> None:
        found = find_checkpoint(self.folder, resume) if resume else None
        overwrite = self.args.overwrite_output_dir or resume == "auto"
        setup.claim_folder(self.folder, found, overwrite, self.accelerator)
        if found and self.args.compare and not self.results.has_before:
            raise ValueError(
                f"compare is on, but {self.folder} holds no evaluation from before training (started without compare, "
                "or in another folder): resume with compare: false"
            )
        self.accelerator.init_trackers(self.args.tracker_project_name, config=setup.flat(self.args))
        if found:
            self.state.load(self, found)
            self.log.truncate(self.state.step)
            self.watchdog.resume()
        if self.accelerator.is_main_process:
            save_config(self.args, self.folder / "config.yaml")

    def _finish(self) -> None:
        with self.averaged():
            if self.accelerator.is_main_process:
                self.save_model()
            if self.args.compare:
                self.results.after()
        self.results.report()
        self.accelerator.end_training()

    def averaged(self) -> Any:
        """Context in which the policy has its averaged weights, when there are any."""
        return trained.averaged(self.ema, self.parameters)

    def save_model(self, output_dir: str | Path | None = None) -> Path:
        """Write the trained weights for diffusers: `pytorch_lora_weights.safetensors`, or the whole pipeline."""
        return setup.save_model(self.policy, Path(output_dir) if output_dir else self.folder)

    def push_to_hub(self, repo_id: str, *, private: bool = False) -> str:
        """Upload the run's weights, configuration and model card; the token comes from the environment alone."""
        return self.results.push(repo_id, private=private)

    def save_checkpoint(self) -> None:
        """Write a checkpoint at the end of a roll-out (main process), keeping checkpoints_total_limit."""
        self.state.save(self)

    def _load(self, model: Any) -> Adapter:
        args, device = self.args, self.accelerator.device
        if isinstance(model, Adapter):
            policy = model
        elif model is None or isinstance(model, (str, Path)):
            policy = load_policy(
                str(model or args.pretrained_model_name_or_path),
                revision=args.revision,
                variant=args.variant,
                resolution=args.resolution,
                max_sequence_length=args.max_sequence_length,
                dtype=trained.weight_dtype(args),
                device=device,
            )
        else:
            policy = adapt(model, resolution=args.resolution, device=device, **setup.family_options(args))
        policy.autocast = self.accelerator.autocast
        if args.gradient_checkpointing:
            policy.denoiser.enable_gradient_checkpointing()
        return policy

    def _steps_per_rollout(self) -> int:
        roots = len(sample_spec(self.args, self.records, 0).seeds)
        if self.args.updates_per_rollout > roots:
            raise ValueError(
                f"updates_per_rollout = {self.args.updates_per_rollout}, but a roll-out has only {roots} trajectories "
                "to share out to them; lower it, or raise prompts_per_rollout or num_generations"
            )
        return self.args.updates_per_rollout * self.args.num_iterations
