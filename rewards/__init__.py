"""Reward plugins: the contract, the registry, the scoring rules and the built-in rewards.

The import name is always `diffalign.rewards`; the folder is at the top of the repository and is linked into the
package.
"""

from __future__ import annotations

if __name__ == "rewards":
    raise ImportError(
        "this folder is the package `diffalign.rewards`: write `import diffalign.rewards` (a second copy of it "
        "would not be the one that the trainers use)"
    )

from diffalign.rewards.base import FunctionReward, Reward, ScoringFailure
from diffalign.rewards.combination import Combination, Combined
from diffalign.rewards.contract import check_contract
from diffalign.rewards.groups import GroupReward, broadcast, leave_one_out
from diffalign.rewards.guard import GuardedReward
from diffalign.rewards.identity import identity
from diffalign.rewards.pairs import AnchoredReward, PairwiseJudge, PairwiseReward
from diffalign.rewards.preparation import check_names, prepare
from diffalign.rewards.registry import Entry, as_reward, entries, get, listed, names
from diffalign.rewards.scorer import Pending, Scorer
from diffalign.rewards.scoring import count_failures, score
from diffalign.rewards.wrapped import moved

__all__ = [
    "AnchoredReward",
    "Combination",
    "Combined",
    "Entry",
    "FunctionReward",
    "GroupReward",
    "GuardedReward",
    "PairwiseJudge",
    "PairwiseReward",
    "Pending",
    "Reward",
    "Scorer",
    "ScoringFailure",
    "as_reward",
    "broadcast",
    "check_contract",
    "check_names",
    "count_failures",
    "entries",
    "get",
    "identity",
    "leave_one_out",
    "listed",
    "moved",
    "names",
    "prepare",
    "score",
]
