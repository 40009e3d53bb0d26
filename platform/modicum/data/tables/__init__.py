"""Readers of labelled rows with votes of labeling functions."""
