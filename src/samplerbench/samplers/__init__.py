"""Samplers, one file for each; `base.Sampler` is their base class."""
