"""The keys that every method has. A method's own keys are a subclass of `RunConfig`, declared beside its trainer."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from diffalign.config.keys import check_range, hints, key
from diffalign.config.paths import expanded
from diffalign.config.values import coerce
from diffalign.naming import nearest

TRACKERS = ("tensorboard", "wandb")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Keys of every run. Names follow TRL and diffusers; `diffalign train --help` explains each.

    Values are converted and checked here, so that Python, YAML and the command line cannot differ.

    Raises:
        ValueError: a value of the wrong type, outside its range, or one that contradicts another key.
    """

    method: str = key("policy_gradient", "training method; `--help METHOD` shows its own keys", section="method")
    # model
    pretrained_model_name_or_path: str = key(
        "shapes-flow",
        "shipped checkpoint name, diffusers folder, or hub id",
        section="model",
        aliases=["model"],
        path=True,
    )
    revision: str | None = key(None, "hub revision of the model")
    variant: str | None = key(None, "weight variant of the model, for example fp16")
    resolution: int | None = key(None, "image height and width in pixels; default: the pipeline's own", above=0)
    height: int | None = key(None, "image height in pixels, where it differs from resolution", above=0)
    width: int | None = key(None, "image width in pixels, where it differs from resolution", above=0)
    embedded_guidance: float | None = key(
        None, "guidance given to the network as an input (FLUX dev: 3.5), apart from guidance_scale", low=0
    )
    max_sequence_length: int | None = key(
        None, "text tokens (families with T5 or a language model); default: the family's own", above=0
    )
    # trained weights
    lora_r: int = key(
        32, "LoRA rank; 0 trains all weights of the denoiser", low=0, section="trained weights", aliases=["rank"]
    )
    lora_alpha: float = key(64.0, "LoRA scale is lora_alpha / lora_r", above=0)
    lora_dropout: float = key(0.0, "LoRA dropout; probability ratios are exact only at 0", low=0, below=1)
    lora_target_modules: list[str] | None = key(None, "module names that get LoRA; default: the family's attention")
    lora_path: str | None = key(None, "folder of an existing LoRA to go on training", path=True)
    gradient_checkpointing: bool = key(False, "recompute the denoiser in backward: less memory, one more forward")
    mixed_precision: Literal["no", "bf16", "fp16"] = key(
        "no", "autocast of the denoiser; steps and log-probs stay fp32"
    )
    denoiser_dtype: Literal["auto", "fp32"] = key(
        "auto", "storage of frozen denoiser weights and latents: auto (half precision on a GPU), fp32 (released SD3.5)"
    )
    # sampling
    num_inference_steps: int = key(10, "denoising steps of training rollouts", above=0, section="sampling")
    guidance_scale: float = key(1.0, "classifier-free guidance of rollouts and training; <= 1: conditional branch only")
    negative_prompt: str = key("", "text of the unconditional branch; the empty string is the trained null prompt")
    # optimisation
    max_train_steps: int = key(100, "optimiser steps", above=0, section="optimisation")
    per_device_train_batch_size: int = key(
        32, "images per forward; results do not depend on it beyond rounding", above=0, aliases=["batch_size"]
    )
    learning_rate: float = key(3e-4, "AdamW learning rate", above=0)
    lr_scheduler: Literal["constant", "constant_with_warmup", "linear", "cosine"] = key(
        "constant_with_warmup", "learning-rate schedule"
    )
    lr_warmup_steps: int = key(0, "warm-up steps", low=0)
    adam_beta1: float = key(0.9, "AdamW beta1", low=0, below=1)
    adam_beta2: float = key(0.999, "AdamW beta2", low=0, below=1)
    adam_weight_decay: float = key(1e-4, "AdamW weight decay", low=0)
    adam_epsilon: float = key(1e-8, "AdamW epsilon", above=0)
    max_grad_norm: float = key(1.0, "gradient norm clip", above=0)
    max_skipped_steps: int = key(
        10, "steps in a row with a non-finite loss or gradient that are skipped before the run stops", low=0
    )
    ema_decay: float = key(
        0.0, "decay of the averaged weights, which are then evaluated and saved; 0 = off", low=0, below=1
    )
    ema_update_every: int = key(1, "optimiser steps between EMA updates", above=0)
    seed: int = key(0, "seed of prompts, noise and initialisation", low=0)
    # data
    train_dataset: str = key(
        "shapes:train",
        "shapes:train, a .txt of prompts, or a .jsonl with prompt and metadata",
        section="data",
        path=True,
    )
    eval_dataset: str | None = key("shapes:heldout", "held-out prompts, same forms; none = no evaluation", path=True)
    max_train_samples: int | None = key(None, "use only the first n training records", above=0)
    max_eval_samples: int | None = key(None, "use only the first n evaluation prompts", above=0)
    # evaluation
    eval_rewards: list[str] = key([], "held-out rewards: measured, never trained", section="evaluation")
    reward_kwargs: dict[str, dict[str, Any]] = key({}, "keyword arguments per reward name")
    reward_options: dict[str, dict[str, Any]] = key(
        {}, "per reward device, batch_size, worker (thread, process), timeout, retries, backoff (seconds)"
    )
    reward_cache: str | None = key(
        None, "file or folder that keeps scores by content; default: none are kept", path=True
    )
    eval_steps: int = key(0, "optimiser steps between evaluations while training; 0 = none", low=0)
    eval_guidance_scales: list[float] = key([1.0, 2.0, 3.0, 5.0], "before and after: the best of these is reported")
    eval_num_inference_steps: int | None = key(None, "ODE steps of evaluation; default num_inference_steps", above=0)
    eval_images_per_prompt: int = key(4, "images per held-out prompt", above=0)
    eval_images_per_scale: int | None = key(
        None,
        "of these, how many choose the best guidance scale, which alone is then measured on all; default all",
        above=0,
    )
    validation_prompts: list[str] = key(
        [], "prompts drawn at every evaluation into the run folder and the trackers; default: the first held-out ones"
    )
    watchdog: Literal["off", "flag", "stop"] = key(
        "flag", "when eval_rewards diverge from the trained reward (needs eval_steps): warn, or end the run"
    )
    compare: bool = key(False, "evaluate before and after training by the full protocol and report the gain")
    eval_before: str | None = key(
        None,
        "evaluation/before.json of another run on this model, taken instead of evaluating before (needs compare)",
        path=True,
    )
    # output
    output_dir: str = key("runs/diffalign", "run folder", section="output", path=True)
    overwrite_output_dir: bool = key(
        False, "replace the run that output_dir holds, instead of refusing to start", launch=True
    )
    run_name: str | None = key(None, "name shown in the report and by trackers")
    report_to: list[str] = key([], "trackers beside metrics.jsonl: tensorboard, wandb")
    tracker_project_name: str = key("diffalign", "project name for trackers")
    checkpointing_steps: int | None = key(
        None,
        "optimiser steps between checkpoints; 0 = only at the end; default a tenth of the run",
        low=0,
    )
    checkpoints_total_limit: int | None = key(None, "checkpoints kept", above=0)
    resume_from_checkpoint: str | None = key(
        None, "checkpoint folder, latest, or auto (newest whole one, or anew)", path=True, launch=True
    )
    preflight: bool = key(True, "check the run before step 1 (ratio = 1, reward spread, moving weights)")

    def __post_init__(self) -> None:
        types = hints(type(self))
        for field in fields(self):
            value = coerce(field.name, getattr(self, field.name), types[field.name])
            if field.metadata.get("path") and isinstance(value, str):
                value = expanded(value)
            object.__setattr__(self, field.name, value)  # frozen for everybody else
            check_range(field, value)
        self.check()

    @property
    def trained_rewards(self) -> list[str]:
        """Names of the rewards that the method optimises; none here."""
        return []

    @property
    def rewards_given(self) -> bool:
        """False where a trainer may still be given other rewards than the default: they are checked then."""
        return True

    def check(self) -> None:
        """Refuse keys that exclude or need each other; a subclass adds its own and calls this one.

        Raises:
            ValueError: what was given, what is valid.
        """
        self._check_rewards()
        self._check_evaluation()
        unknown = set(self.report_to) - set(TRACKERS)
        if unknown:
            raise ValueError(f"report_to names {sorted(unknown)}; valid: {', '.join(TRACKERS)}, or none")

    def _check_rewards(self) -> None:
        names = [*self.trained_rewards, *self.eval_rewards]
        for name in self.reward_kwargs:
            if self.rewards_given and name not in names:
                raise ValueError(f"reward_kwargs names `{name}`, which is no reward of this run{nearest(name, names)}")

    def _check_evaluation(self) -> None:
        if not self.eval_guidance_scales:
            raise ValueError("eval_guidance_scales is empty: name at least one guidance scale, for example [1.0, 3.0]")
        if (self.eval_images_per_scale or 0) > self.eval_images_per_prompt:
            raise ValueError(
                f"eval_images_per_scale = {self.eval_images_per_scale} must not exceed eval_images_per_prompt = "
                f"{self.eval_images_per_prompt}"
            )
        if self.eval_dataset is None and (self.compare or self.eval_steps):
            raise ValueError("compare and eval_steps need held-out prompts: set eval_dataset, or turn both off")
        if self.eval_before and not self.compare:
            raise ValueError("eval_before replaces the evaluation before training, which compare requests: set compare")
        if self.eval_before and not Path(self.eval_before).is_file():
            raise ValueError(
                f"eval_before = {self.eval_before} does not exist: name evaluation/before.json of another run"
            )
        held_out = set(self.eval_rewards) - set(self.trained_rewards)
        if self.watchdog == "stop" and not (self.eval_steps and held_out):
            raise ValueError(
                "watchdog = stop needs eval_steps > 0 and eval_rewards that are not trained: it compares the two; set "
                "them, or watchdog: flag"
            )
