"""The DPO loss and the acquisition functions: pure functions of arrays."""
