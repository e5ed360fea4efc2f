"""Adapters from diffusers pipelines to the sampler's Policy; LoRA, reference policy, counts."""

from diffalign.models.adapter import Adapter
from diffalign.models.families import adapt, families
from diffalign.models.loading import load_pipeline, load_policy, shipped_names
from diffalign.models.lora import add_lora, has_lora, load_lora, saved_lora
from diffalign.models.meter import Meter
from diffalign.models.trainable import (
    Reference,
    WeightCopy,
    load_trainable_state,
    save_trained,
    train_all,
    trainable_parameters,
    trainable_state,
)

__all__ = [
    "Adapter",
    "Meter",
    "Reference",
    "WeightCopy",
    "adapt",
    "add_lora",
    "families",
    "has_lora",
    "load_lora",
    "load_pipeline",
    "load_policy",
    "load_trainable_state",
    "save_trained",
    "saved_lora",
    "shipped_names",
    "train_all",
    "trainable_parameters",
    "trainable_state",
]
