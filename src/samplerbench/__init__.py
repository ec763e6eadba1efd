"""Train score models, run samplers on them, and measure how good each sampler is, and why."""

__version__ = "0.1.0"
