"""Encoders: pictures and prompts to features, with our own preprocessing and weights that are checked."""
