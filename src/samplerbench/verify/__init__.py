"""Measurements of what members promise: orders, laws, contracts."""
