"""Networks: one file per member, see `base.Network` for the contract."""
