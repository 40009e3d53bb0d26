"""Active preference learning for language models (chapter 6): its oracles, so far."""
