"""Glue: one file per command. Nothing imports this package but tests."""
