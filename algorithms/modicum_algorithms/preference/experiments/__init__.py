"""Further experiments: how reliable an oracle is."""
