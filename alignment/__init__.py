"""From instructions to an aligned policy: mixed SFT, candidate answers, PPO."""
