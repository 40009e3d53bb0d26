"""Solipsistic reinforcement learning: planning in a model that never generates observations."""
