"""Training: batches, the loop, weights; pretrained models."""
