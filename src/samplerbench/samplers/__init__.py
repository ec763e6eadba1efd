"""Samplers: one file per member, see `base.Sampler` for the contract."""
