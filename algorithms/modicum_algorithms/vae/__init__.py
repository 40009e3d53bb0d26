"""Amortized inference in variational auto-encoders, and lossless compression with them."""
