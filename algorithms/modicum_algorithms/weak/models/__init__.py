"""Networks and probability models: the end model and the label models."""
