"""One run at a time in a folder."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from curation.engine.stage import StopRun


@contextmanager
def only_run(folder: Path, shown: Path | None = None) -> Iterator[None]:
    """Hold the folder's lock; a lock dies with its process, so nothing is left to clean up.

    A file system without locks (some of clusters) goes without.

    Args:
        folder: gets the lock file; made if it is not there.
        shown: how the user knows it, if by another name.

    Raises:
        StopRun: somebody else holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        with suppress(OSError):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StopRun(
                    f"{shown or folder}: another run is at work here; wait for it or stop it"
                ) from error
        yield
