"""A user's mistake is one line, not a stack trace."""

from __future__ import annotations

import errno

import typer

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)


class plain_errors:
    """A user's mistake ends in one line on standard error and exit status 2, without a stack trace."""

    def __enter__(self) -> None:
        """Nothing to set up."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Turn the errors that carry a message for the user into that message."""
        from curation.config import SettingsError
        from curation.discover import NothingFound
        from curation.engine.stage import StopRun, Verdict
        from curation.optional import MissingExtra
        from curation.query import QueryError
        from curation.stories.script import StoryError
        from curation.weights import WeightsDamaged, WeightsMissing
        from memento_model.errors import CheckpointError, DataError, LaunchError

        ours = (
            CheckpointError,
            DataError,
            LaunchError,
            SettingsError,
            NothingFound,
            MissingExtra,
            QueryError,
            StopRun,
            StoryError,
            WeightsDamaged,
            WeightsMissing,
        )
        if isinstance(error, ours):
            typer.secho(f"memento: {error}", fg="red", err=True)
            raise typer.Exit(2) from error
        if isinstance(error, Verdict):
            typer.secho(f"memento: {error.reason}: {error.detail}", fg="red", err=True)
            raise typer.Exit(2) from error
        if isinstance(error, OSError) and error.errno in FULL + CLOSED:
            way = "free some space" if error.errno in FULL else "mend it or choose another place (--output)"
            told = f"{error.filename or 'disk'}: {error.strerror}"
            typer.secho(f"memento: {told}; {way} and run the same command again", fg="red", err=True)
            raise typer.Exit(2) from error
        if isinstance(error, KeyboardInterrupt):
            typer.secho("memento: stopped; run the same command again to go on", fg="yellow", err=True)
            raise typer.Exit(130) from error
