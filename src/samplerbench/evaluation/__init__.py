"""Evaluation: cells, their statistics, and the store that holds their results."""
