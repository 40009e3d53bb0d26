"""The thesis's model-free baselines as RLlib algorithms (appendix C.2.3)."""
