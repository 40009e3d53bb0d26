"""Integrated weak learning (thesis chapter 3) and its baselines."""
