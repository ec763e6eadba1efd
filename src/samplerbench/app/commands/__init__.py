"""The commands: what `samplerbench WORD …` runs."""
