"""What a member promises, measured: orders, laws, contracts."""
