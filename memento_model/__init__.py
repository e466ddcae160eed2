"""Memento on Wan2.2: a video diffusion transformer that remembers earlier shots, its training and its use."""
