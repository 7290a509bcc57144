"""From the name of a dataset to batches of images: sources, splits, and the order of training."""
