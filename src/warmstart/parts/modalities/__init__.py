"""How one raw input becomes named arrays."""
