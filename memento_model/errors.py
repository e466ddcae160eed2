"""Errors whose message is meant for the user: one line, what, where and how to mend."""

from __future__ import annotations


class CheckpointError(ValueError):
    """Weights are not what they must be."""


class LaunchError(RuntimeError):
    """The processes of a run could not be started as asked, or one of them was lost."""
