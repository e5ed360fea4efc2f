"""Published objectives by name, composed from the functions of :mod:`diffalign.losses`.

::

    from diffalign.losses import recipes

    loss = recipes.get("simpo")(logp_w, logp_l, mask_w=mask_w, mask_l=mask_l, beta=2.0)
    recipes.get("simpo").formula, recipes.get("simpo").confidence  # plain text; "checked", "derived", ...
    recipes.names("policy")  # all of one kind; KINDS has the calling conventions
"""

from __future__ import annotations

from diffalign.losses.recipes import advantages as advantages
from diffalign.losses.recipes import aspo as aspo
from diffalign.losses.recipes import budgets as budgets
from diffalign.losses.recipes import bundles as bundles
from diffalign.losses.recipes import check_weights as check_weights
from diffalign.losses.recipes import constraints as constraints
from diffalign.losses.recipes import copo as copo
from diffalign.losses.recipes import credit as credit
from diffalign.losses.recipes import curricula as curricula
from diffalign.losses.recipes import dense_rewards as dense_rewards
from diffalign.losses.recipes import diffusion_policies as diffusion_policies
from diffalign.losses.recipes import distillation as distillation
from diffalign.losses.recipes import entropy as entropy
from diffalign.losses.recipes import gpm as gpm
from diffalign.losses.recipes import group_advantages as group_advantages
from diffalign.losses.recipes import implicit_reward as implicit_reward
from diffalign.losses.recipes import kl_terms as kl_terms
from diffalign.losses.recipes import listwise as listwise
from diffalign.losses.recipes import madpo as madpo
from diffalign.losses.recipes import masks as masks
from diffalign.losses.recipes import nash_md as nash_md
from diffalign.losses.recipes import objective_weights as objective_weights
from diffalign.losses.recipes import oreal as oreal
from diffalign.losses.recipes import pair_selection as pair_selection
from diffalign.losses.recipes import policy as policy
from diffalign.losses.recipes import policy_objectives as policy_objectives
from diffalign.losses.recipes import policy_off as policy_off
from diffalign.losses.recipes import ppo as ppo
from diffalign.losses.recipes import ppo_c as ppo_c
from diffalign.losses.recipes import ppo_max as ppo_max
from diffalign.losses.recipes import preference as preference
from diffalign.losses.recipes import preference_diffusion as preference_diffusion
from diffalign.losses.recipes import preference_links as preference_links
from diffalign.losses.recipes import preference_models as preference_models
from diffalign.losses.recipes import preference_square as preference_square
from diffalign.losses.recipes import preference_steps as preference_steps
from diffalign.losses.recipes import preference_tokens as preference_tokens
from diffalign.losses.recipes import reference_pairs as reference_pairs
from diffalign.losses.recipes import regularizers as regularizers
from diffalign.losses.recipes import reward_ensembles as reward_ensembles
from diffalign.losses.recipes import reward_models as reward_models
from diffalign.losses.recipes import reward_pairs as reward_pairs
from diffalign.losses.recipes import reward_shaping as reward_shaping
from diffalign.losses.recipes import reward_sums as reward_sums
from diffalign.losses.recipes import scalarization as scalarization
from diffalign.losses.recipes import selection as selection
from diffalign.losses.recipes import sft as sft
from diffalign.losses.recipes import token_advantages as token_advantages
from diffalign.losses.recipes import tspo as tspo
from diffalign.losses.recipes import unpaired as unpaired
from diffalign.losses.recipes import value_heads as value_heads
from diffalign.losses.recipes import wins as wins
from diffalign.losses.recipes.description import describe
from diffalign.losses.recipes.kinds import KINDS, Kind
from diffalign.losses.recipes.registry import Recipe, get, names, recipe

__all__ = ["KINDS", "Kind", "Recipe", "describe", "get", "names", "recipe"]
