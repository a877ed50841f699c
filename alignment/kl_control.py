"""The price of KL over a run: fixed, or steered so that the policy stays at a chosen distance from the reference."""


def next_coefficient(coefficient: float, kl_nats: float, *, target_nats: float, horizon: int, answers: int) -> float:
    """Return beta for the next rollout: dearer where the KL is above its target, cheaper where it is below.

        e = clip((KL - target) / target, -0.2, 0.2)        beta' = beta (1 + e answers / horizon)

    Ziegler et al. 2019 (arXiv 1909.08593), section 2.2, with the gain as in OpenAI's published code: answers / horizon.

    Args:
        coefficient: beta of this rollout, score units per nat.
        kl_nats: KL to the reference, summed over an answer, mean over the rollout's answers.
        target_nats: Where that is to stay; 0 leaves beta as it is.
        horizon: Answers over which beta can change by a fifth.
        answers: Answers of the rollout, over all processes.
    """
    if not target_nats:
        return coefficient
    error = min(0.2, max(-0.2, kl_nats / target_nats - 1))
    return coefficient * (1 + error * answers / horizon)
