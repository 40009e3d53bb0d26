"""Needs of a study before it runs: memory of each GPU, tokens and time."""
