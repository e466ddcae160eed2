"""Captions of a sequence: what is measured, asked, checked and repaired."""
