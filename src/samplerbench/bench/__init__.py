"""The benchmark: cells and their books, sweeps, what their values support."""
