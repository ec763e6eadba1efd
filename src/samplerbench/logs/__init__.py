"""Logs: Weights & Biases, CSV files, TensorBoard or nothing. They show results and store none."""
