"""Data sets with votes and labels, and what they are made of."""
