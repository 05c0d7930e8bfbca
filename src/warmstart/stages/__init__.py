"""Verbs: one file each, frameworks imported inside functions."""
