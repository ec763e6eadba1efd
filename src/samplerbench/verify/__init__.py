"""Checks of the promises of members: orders, laws, contracts."""
