"""The parts of solipsistic reinforcement learning; `algorithm` puts them together."""
