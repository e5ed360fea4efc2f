"""Policy objectives of :mod:`diffalign.losses` registered under the names of their methods."""

from __future__ import annotations

from diffalign.losses.common import masked_mean, masked_seq_mean, masked_seq_sum
from diffalign.losses.policy import kl_mask
from diffalign.losses.policy_covariance import clip_cov, kl_cov
from diffalign.losses.policy_divergence import dppo_kl, dppo_tv
from diffalign.losses.policy_sequence import gmpo, gspo, gspo_token, sequence_clip
from diffalign.losses.policy_soft import cispo, dro, sapo, vespo
from diffalign.losses.recipes.registry import recipe

recipe("rloo", "policy", reduce=masked_seq_mean, eps_low=0.2)(sequence_clip)
recipe("gspo", "policy", reduce=masked_seq_mean)(gspo)
recipe("gspo-token", "policy", reduce=masked_seq_mean)(gspo_token)
recipe("luspo", "policy", reduce=masked_seq_sum)(gspo)
recipe("gmpo", "policy", aliases=("geo-mean",), reduce=masked_seq_mean)(gmpo)
recipe("cispo", "policy", reduce=masked_mean)(cispo)
recipe("sapo", "policy", reduce=masked_seq_mean)(sapo)
recipe("vespo", "policy", reduce=masked_mean)(vespo)
recipe("dro", "policy", reduce=masked_mean)(dro)
recipe("dppo-tv", "policy", reduce=masked_mean)(dppo_tv)
recipe("dppo-kl", "policy", reduce=masked_mean)(dppo_kl)
recipe("clip-cov", "policy", reduce=masked_mean)(clip_cov)
recipe("kl-cov", "policy", reduce=masked_mean)(kl_cov)
recipe("flow-dppo", "policy")(kl_mask)
