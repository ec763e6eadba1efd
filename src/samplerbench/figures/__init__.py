"""Figures: they read the results table or a trajectory, nothing else."""
