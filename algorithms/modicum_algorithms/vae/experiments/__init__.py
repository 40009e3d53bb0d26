"""Further experiments with VAEs: consistency and compression."""
