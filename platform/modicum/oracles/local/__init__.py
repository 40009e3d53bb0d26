"""Oracles that need no endpoint: they score each completion by itself, or add noise to another."""
