"""Amortized inference in variational auto-encoders, and compression by them (thesis chapter 4)."""
