"""The methods: solipsistic learning's parts, and the thesis's model-free baselines, PPO and DQN."""
