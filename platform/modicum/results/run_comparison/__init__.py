"""Comparison of whole runs: their settings, versions and results."""
