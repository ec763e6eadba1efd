"""Objectives: one file per training loss, see `base.Objective` for the contract."""
