"""How plain state dicts of known architectures become bodies."""
