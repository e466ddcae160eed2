"""Weights in every form: found, checked, loaded, converted, written."""
