"""Option and key names of other trainers, and ours for the same thing; used in hints only, never accepted."""

from __future__ import annotations

from collections.abc import Iterable

from diffalign.naming import nearest

FOREIGN_NAMES: dict[str, str] = {
    # diffusers' scripts, TRL, ai-toolkit, kohya, OneTrainer
    "lr": "learning_rate",
    "lr_rate": "learning_rate",
    "unet_lr": "learning_rate",
    "epochs": "max_train_steps",
    "num_epochs": "max_train_steps",
    "num_train_epochs": "max_train_steps",
    "steps": "max_train_steps",
    "max_steps": "max_train_steps",
    "train_steps": "max_train_steps",
    "lora_rank": "lora_r",
    "network_dim": "lora_r",
    "network_alpha": "lora_alpha",
    "target_modules": "lora_target_modules",
    "train_batch_size": "per_device_train_batch_size",
    "save_steps": "checkpointing_steps",
    "save_freq": "checkpointing_steps",
    "save_every": "checkpointing_steps",
    "save_total_limit": "checkpoints_total_limit",
    "logging_backend": "report_to",
    "log_with": "report_to",
    "kl_coef": "beta",
    "kl_beta": "beta",
    "adv_clip_max": "advantage_clip",
    "num_image_per_prompt": "num_generations images_per_prompt",
    "global_std": "scale_rewards",
    "dataset": "train_dataset",
    "dataset_name": "train_dataset",
    # images and evaluation
    "cfg": "guidance_scale",
    "cfg_scale": "guidance_scale",
    "guidance": "guidance_scale",
    "num_steps": "num_inference_steps",
    "sampling_steps": "num_inference_steps",
    "num_images_per_prompt": "images_per_prompt num_generations",
    "n_samples": "images_per_prompt",
    "lora_path": "lora",
    "lora_weights": "lora",
    "outdir": "output",
    "out": "output",
    "output_dir": "output",
    "reward": "reward_funcs",
    "rewards": "reward_funcs",
}
"""Foreign name -> ours (several: separated by spaces, the first that the command or configuration at hand has)."""


def suggestion(word: str, valid: Iterable[str]) -> str:
    """`naming.nearest`, but a name of another trainer is answered with what it means: `lr` with `learning_rate`.

    Words may be option names: `--lr` is answered with `--learning_rate`.
    """
    known = list(valid)
    dashes = "--" if word.startswith("--") else ""
    meant = [dashes + ours for ours in FOREIGN_NAMES.get(word.removeprefix("--"), "").split()]
    ours = next((name for name in meant if name in known), None)
    return f"; did you mean `{ours}`?" if ours else nearest(word, known)
