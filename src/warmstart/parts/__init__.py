"""Parts: one file = one plug-in."""
