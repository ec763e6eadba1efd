"""Figures of the results table, and pictures of a job: its data, scores and sampler paths."""
