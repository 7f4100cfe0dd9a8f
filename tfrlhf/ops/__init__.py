"""Pure functions from tensors to tensors: no model, no configuration.

Each works eagerly, in `tf.function` and under `jit_compile=True`.
"""

from tfrlhf.ops.advantages import discounted_returns
from tfrlhf.ops.advantages import gae
from tfrlhf.ops.distribute import global_sum
from tfrlhf.ops.distribute import global_sums
from tfrlhf.ops.fused_statistics import fused_token_statistics
from tfrlhf.ops.groups import group_relative
from tfrlhf.ops.groups import leave_one_out
from tfrlhf.ops.kl import kl_estimate
from tfrlhf.ops.log_probs import entropy
from tfrlhf.ops.log_probs import token_log_probs
from tfrlhf.ops.masking import masked_mean
from tfrlhf.ops.masking import masked_variance
from tfrlhf.ops.masking import whiten
from tfrlhf.ops.masking import zero_outside
from tfrlhf.ops.rewards import token_rewards
from tfrlhf.ops.sequences import last_token_index
from tfrlhf.ops.sequences import truncate_at_stop

__all__ = [
    "discounted_returns",
    "entropy",
    "fused_token_statistics",
    "gae",
    "global_sum",
    "global_sums",
    "group_relative",
    "kl_estimate",
    "last_token_index",
    "leave_one_out",
    "masked_mean",
    "masked_variance",
    "token_log_probs",
    "token_rewards",
    "truncate_at_stop",
    "whiten",
    "zero_outside",
]
