"""Oracles behind an OpenAI-compatible endpoint: the oracle, its gate, and the gate's workers."""
