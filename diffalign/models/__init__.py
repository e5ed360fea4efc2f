"""Adapters from diffusers pipelines to the sampler's Policy; LoRA, reference policy, counts."""

from diffalign.models.adapter import Adapter
from diffalign.models.loading import FAMILIES, adapt, load_pipeline, load_policy, shipped_names
from diffalign.models.meter import Meter
from diffalign.models.stable_diffusion import StableDiffusionAdapter
from diffalign.models.stable_diffusion_3 import StableDiffusion3Adapter
from diffalign.models.trainable import (
    Reference,
    WeightCopy,
    add_lora,
    has_lora,
    load_lora,
    load_trainable_state,
    save_trained,
    train_all,
    trainable_parameters,
    trainable_state,
)

__all__ = [
    "FAMILIES",
    "Adapter",
    "Meter",
    "Reference",
    "WeightCopy",
    "StableDiffusion3Adapter",
    "StableDiffusionAdapter",
    "adapt",
    "add_lora",
    "has_lora",
    "load_lora",
    "load_pipeline",
    "load_policy",
    "load_trainable_state",
    "save_trained",
    "shipped_names",
    "train_all",
    "trainable_parameters",
    "trainable_state",
]
