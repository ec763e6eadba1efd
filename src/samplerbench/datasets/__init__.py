"""Data sets: one file per member, see `base.Dataset` for the contract."""
