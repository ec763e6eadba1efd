"""One job: what `samplerbench` does without the name of a command."""
