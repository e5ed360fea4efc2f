"""Log-probs of tokens from hidden states: the last linear layer, its log-softmax and the choice of a token in one."""

from __future__ import annotations

from diffalign.cuda_ext.linear_log_prob.operator import linear_log_prob, reason

__all__ = ["linear_log_prob", "reason"]
