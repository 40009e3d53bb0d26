"""Readers of labeled rows with weak votes."""
