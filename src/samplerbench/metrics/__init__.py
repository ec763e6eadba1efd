"""Metrics: one file per member, see `base.Metric` for the contract."""
