"""Scores anybody's multi-shot videos on ST-Bench, and says how sure each number is."""
