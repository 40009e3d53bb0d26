"""Networks that see observations, the same for all three methods."""
