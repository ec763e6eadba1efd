"""The suite: `standing` computes runtimes and the table from its results."""
