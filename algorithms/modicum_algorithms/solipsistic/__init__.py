"""Solipsistic reinforcement learning as an RLlib algorithm, with PPO and DQN beside it."""
