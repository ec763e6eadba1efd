"""The error budget: `run` measures it, `parts` computes the parts, `words` gives advice."""
