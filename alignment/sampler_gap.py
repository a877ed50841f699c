"""How far the sampler's log-probabilities lie from those of the training path, of which the ratios are made.

Both are of the same tokens under the same weights; kernels, order of sums and a merged copy's rounding set them apart.
The ratios of PPO begin at 1 all the same, since the old log-probabilities are the training path's; but a sampler that
is far off samples another policy than the one that learns.
"""

import math
from collections.abc import Sequence

import torch

from alignment.processes import Processes
from alignment.rollout import Measured
from finlm.errors import UserError
from finlm.generation import Answer


def checked(
    measured: Sequence[Measured], answers: Sequence[Answer], processes: Processes, *, limit: float
) -> dict[str, float]:
    """Return mean and maximum of |sampler's - training path's| log-probability over all answer tokens and processes.

    Args:
        measured: The answers as the training path read them.
        answers: As the sampler gave them.
        processes: All of them; each must come here.
        limit: Mean, in nats per token, beyond which the run stops; 0 lets any pass.

    Returns:
        `rollout/sampler_gap` and `rollout/sampler_gap_max`, nats; empty where the engine tells no log-probabilities.

    Raises:
        UserError: The mean is beyond the limit, or not finite.
    """
    differences = [*map(abs, _differences(measured, answers))]
    total, count = processes.sum_all([sum(differences), float(len(differences))])
    most = processes.max(max(differences, default=0.0))
    if not count:
        return {}
    mean = total / count
    if not math.isfinite(mean) or 0 < limit < mean:
        raise UserError(
            f"The sampler's log-probabilities are {mean:.4f} nats per token away from the training path's, "
            f"sampler_gap_limit is {limit}; set sampler_merge to false, take dtype float32, or raise the limit."
        )
    return {"rollout/sampler_gap": mean, "rollout/sampler_gap_max": most}


def _differences(measured: Sequence[Measured], answers: Sequence[Answer]) -> list[float]:
    """Return the sampler's log-probability minus the training path's, token by token."""
    apart: list[float] = []
    for item in measured:
        told = [answers[index].log_probs for index in item.batch.index]
        for row, sampled in enumerate(told):
            if sampled:
                trained = item.old_BA[row, : len(sampled)].double().cpu()
                apart += (torch.tensor(sampled, dtype=torch.float64) - trained).tolist()
    return apart
