"""The further experiments of the family."""
