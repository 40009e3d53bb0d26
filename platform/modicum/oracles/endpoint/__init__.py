"""Oracles behind an OpenAI-compatible endpoint: client, gate, ledger."""
