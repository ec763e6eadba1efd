"""The benchmark: cells and their identities, sweeps, statistics, the error budget."""
