"""Image data sets, as arrays and as the tensors of a trial."""
