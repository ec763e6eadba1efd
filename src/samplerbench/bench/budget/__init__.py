"""The error budget: `run` measures it, `parts` takes a table apart, `words` says what helps."""
