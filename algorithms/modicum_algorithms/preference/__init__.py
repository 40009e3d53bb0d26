"""Active preference learning for language models (chapter 6): DPO, acquisition, oracles."""
