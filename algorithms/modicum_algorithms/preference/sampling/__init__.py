"""Sampling of completions: by the training workers, or by a pool of actors."""
