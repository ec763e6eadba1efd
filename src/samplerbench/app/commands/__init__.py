"""The commands of `samplerbench COMMAND …`."""
