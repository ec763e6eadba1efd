"""Logs: Weights & Biases, CSV files, TensorBoard or none. They show results; runs store them."""
