"""Files on disk -> tensors in memory -> batches."""
