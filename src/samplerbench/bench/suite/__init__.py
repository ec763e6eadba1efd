"""The suite: a fixed set of tasks on which samplers are compared; see docs/suite.md."""
