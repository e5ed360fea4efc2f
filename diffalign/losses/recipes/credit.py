"""Methods with advantages per step, turn or segment of a trajectory."""

from __future__ import annotations

import torch
from torch import Tensor

from diffalign.losses.advantages import group_advantage, no_scale
from diffalign.losses.common import as_float, check_same_shape, keep
from diffalign.losses.gae import Gae, gae, last_value
from diffalign.losses.recipes.registry import recipe
from diffalign.losses.tree import backed_up, chain_advantage, cut_segments, sibling_advantage, spread, tree_advantage


@recipe("tempflow-grpo", "advantage", eps=1e-6)
def tempflow_grpo(value: Tensor, parent: Tensor, weight: Tensor, *, eps: float) -> Tensor:
    """TempFlow-GRPO (arXiv:2508.04324): branches from one noisy image compared with their siblings, times the weight of
    the branching step, ``(N,)``.

    Formula: weight (R - mean of siblings) / (std of siblings + eps)

    The released code takes mean and std over the 6 branches of *all* images of a prompt at the step, and the weight
    2.25 c (SD3.5), 1.73 c (FLUX) or 1.53 c (Qwen-Image), about c over its mean.

    Args:
        value: ``(N,)``, rewards of the leaves of trees (:mod:`diffalign.losses.tree`); inner nodes are not read.
        parent: ``(N,)``.
        weight: ``(N,)``, of the step that leads to the node (:func:`diffalign.losses.tempflow_weights`).
        eps: added to the siblings' std.
    """
    check_same_shape(value=value, weight=weight)
    return sibling_advantage(backed_up(value, parent), parent, eps=eps) * as_float(weight.detach())


@recipe("segment-po", "advantage")
def segment_po(value: Tensor, parent: Tensor) -> Tensor:
    """SPO-tree (arXiv:2505.23564, its code): value of a child minus that of its parent, ``(N,)``.

    Formula: V(node) - V(parent), V of an inner node = mean of its children

    Branching 6-6-6 there; edges of exactly 0 may be dropped. On images: branches at denoising
    steps. :func:`segment_po_chain` is SPO-chain. Arguments as in :mod:`diffalign.losses.tree`.
    """
    return tree_advantage(backed_up(value, parent), parent)


def segment_po_chain(value: Tensor, prob: Tensor, *, threshold: float = 0.9, every: int = 5) -> Tensor:
    """SPO-chain: each token gets the gain of its segment, ``(B, T)``; 0 for confident tokens, to be masked in the loss.

    Args:
        value: ``(B, S + 1)``, Monte-Carlo value (9 continuations) at the start and after each segment; NaN after the
            last one of a row.
        prob: ``(B, T)``, probability of each token at rollout.
        threshold: probability of confident tokens.
        every: tokens below the threshold per segment (5 or 10).
    """
    gain = chain_advantage(value)
    return keep(spread(gain, cut_segments(prob, threshold=threshold, every=every)), prob < threshold)


@recipe("rad-2", "advantage")
def rad_2(value: Tensor, parent: Tensor, path: Tensor) -> Tensor:
    """RAD-2's tree over *blocks* of denoising steps: trajectories branch between blocks, and all steps of a block have
    its edge's advantage, ``(B, T)``. From the abstract (second-hand).

    Formula: V(node) - V(parent) of the block's edge, for every step of the block

    Args:
        value: ``(N,)``, rewards of leaves.
        parent: ``(N,)``.
        path: ``(B, T)``, for each trajectory and step the node that its block leads to, -1 for none.
    """
    edges = tree_advantage(backed_up(value, parent), parent)
    return spread(edges.expand(len(path), -1), path)


@recipe("hifpo", "advantage", eps=1e-6)
def hifpo(outcome: Tensor, process: Tensor, parent: Tensor, *, eps: float) -> Tensor:
    """HiFPO (arXiv:2606.19930) [derived from the abstract]: samples of one step are compared by the mean
    outcome of their descendants plus a process score, ``(N,)``. Resampling of failed steps with a hint is left to the
    trainer.

    Formula: (x - mean of siblings) / (std of siblings + eps), x = mean outcome of the leaves below + process

    Args:
        outcome: ``(N,)``, of leaves; a step's outcome is the mean of its descendants.
        process: ``(N,)``, score of each step.
        parent: ``(N,)``.
        eps: added to the siblings' std.
    """
    check_same_shape(outcome=outcome, process=process)
    return sibling_advantage(backed_up(outcome, parent) + as_float(process), parent, eps=eps)


@recipe("igpo-info-gain", "advantage", gamma=1.0)
def igpo(belief: Tensor, outcome: Tensor, *, gamma: float, mask: Tensor | None = None) -> Tensor:
    """IGPO (arXiv:2510.14967, its code): the reward of a turn is its increase of the probability of the correct answer,
    ``(B, G, K)``.

    Formula: sum_{k' >= k} gamma**(k' - k) (r_k' - mean r), r_k = belief_k - belief_{k-1}, r_K = outcome

    The reward of the last turn is the outcome. The mean over all turns of the group is subtracted, then discounted
    returns are summed. No std (optional in the code). On images: the reward of the predicted clean image.

    Args:
        belief: ``(B, G, K + 1)``, probability of the correct answer before the first turn and after each.
        outcome: ``(B, G)``.
        gamma: discount.
        mask: ``(B, G, K)``, 1 where there is a turn.
    """
    if belief.ndim != 3 or outcome.shape != belief.shape[:2]:
        raise ValueError(f"expected belief (B, G, K + 1), outcome (B, G), got {belief.shape} and {outcome.shape}")
    gain = as_float(belief).diff(dim=2)
    valid = torch.ones_like(gain, dtype=torch.bool) if mask is None else mask.bool()
    check_same_shape(turns=gain, mask=valid)
    last = valid & (valid.flip(2).cumsum(2).flip(2) == 1)
    paid = torch.where(last, outcome.to(gain.dtype)[:, :, None], gain)
    centred = group_advantage(paid.flatten(1), scale=no_scale, mask=valid.flatten(1)).view(-1, gain.shape[2])
    nothing = torch.zeros_like(centred)
    return gae(centred, nothing, mask=valid.flatten(0, 1), gamma=gamma, lam=1.0).advantages.view_as(gain)


@recipe("t-ppo", "advantage", gamma=1.0, lam=0.95)
def t_ppo(
    rewards: Tensor, values: Tensor, truncated: Tensor, *, gamma: float, lam: float, mask: Tensor | None = None
) -> Gae:
    """T-PPO (arXiv:2506.15050): GAE in which a truncated row bootstraps with its own last value (EGAE).

    Formula: sum_l (gamma lam)**l delta_{t+l}, delta_t = r_t + gamma V_{t+1} - V_t, V_{T+1} = V_T in truncated rows

    The policy trains on all rows, the critic on finished ones only: mask its loss by ``~truncated``.

    Args:
        rewards: ``(B, T)``.
        values: ``(B, T)``.
        truncated: ``(B,)`` bool.
        gamma: discount.
        lam: of GAE.
        mask: ``(B, T)``.
    """
    bootstrap = keep(last_value(values, mask), truncated)
    return gae(rewards, values, mask=mask, gamma=gamma, lam=lam, bootstrap=bootstrap)


@recipe("pdppo", "advantage", gamma=1.0, lam=0.95)
def pdppo(
    rewards: Tensor, values: Tensor, post_values: Tensor, *, gamma: float, lam: float, mask: Tensor | None = None
) -> Tensor:
    """PDPPO [derived]: the maximum of two critics' advantages, ``(B, T)``: on the state before the decision,
    and on the post-decision state before the noise (on images the predicted mean). The settings are ours.

    Formula: max(GAE(r, V), GAE(r, V_post))
    """
    advs = [gae(rewards, v, mask=mask, gamma=gamma, lam=lam).advantages for v in (values, post_values)]
    return torch.maximum(*advs)
