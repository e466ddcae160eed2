"""Errors whose message is meant for the user: one line, what, where and how to mend."""

from __future__ import annotations


class CheckpointError(ValueError):
    """Weights are not what they must be."""


class LaunchError(RuntimeError):
    """The processes of a run could not be started as asked, or one of them was lost."""


class DataError(ValueError):
    """The training data or its cache is not what it must be; a line for each fault."""

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults
