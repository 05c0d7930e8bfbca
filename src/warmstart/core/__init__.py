"""Nouns: what things are. Standard library only."""
