"""Oracles without an endpoint: they score completions, or add noise to another oracle."""
