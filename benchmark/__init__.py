"""Scores for any method's multi-shot stories. Not in this release; see CHANGELOG.md."""
