"""Images: sources that are read in batches, and data sets with a training and a test split."""
