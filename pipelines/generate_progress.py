"""What a user sees while a story is made: a line per shot, previews, the page."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    import numpy as np

    from memento_model.story.page import StoryPage
    from memento_model.story.plan import ShotPlan

PREVIEWS = 8
"""Previews of a shot on its way."""
SIGN_OF_LIFE_S = 30.0
"""The page is written again after a step if it is as old as that."""


class Progress:
    """A line per shot, previews, and the page; what the generator tells becomes what the user sees."""

    def __init__(self, folder: Path, page: StoryPage, console: Console) -> None:
        self._folder, self._page, self._console = folder, page, console
        self._plans: list[ShotPlan] = []
        self._finished: set[str] = set()
        self._took: list[float] = []
        self._began = self._written = 0.0
        self._shot_s: float | None = None
        self._status: Any = None

    def story(self, plans: Sequence[ShotPlan], aside: Sequence[str]) -> None:
        """The work begins."""
        self._plans = list(plans)
        if aside:
            told = f"{len(aside)} shots made otherwise were put aside, into {self._folder / 'earlier'}"
            self._console.print(told, style="yellow")
        self._clear_previews()

    def begin(self, plan: ShotPlan) -> None:
        """A shot is made now."""
        self._write()
        if self._console.is_terminal:
            self._status = self._console.status(f"{plan.stem}")
            self._status.start()
        self._began = time.monotonic()

    def step(self, plan: ShotPlan, number: int, steps: int, preview: Callable[[], np.ndarray]) -> None:
        """A solver step is done."""
        took = time.monotonic() - self._began
        if not self._took:
            self._shot_s = took / number * steps
        if self._status is not None:
            left = clock(took / number * (steps - number))
            self._status.update(f"{plan.stem}: step {number} of {steps}, {left} left for this shot")
        every, place = max(1, steps // PREVIEWS), self._folder / "preview" / f"{plan.stem}.jpg"
        if number % every == 0 and number < steps:
            from memento_model.story.video import write_picture

            place.parent.mkdir(exist_ok=True)
            part = place.with_name(f".{place.name}")
            write_picture(part, preview())
            os.replace(part, place)
        if number == every or time.monotonic() - self._written > SIGN_OF_LIFE_S:
            self._write(place if place.is_file() else None)

    def shot(self, plan: ShotPlan, record: Mapping[str, Any], *, reused: bool) -> None:
        """A shot is done or was there already."""
        self._finished.add(plan.stem)
        place = f"{plan.index + 1}/{len(self._plans)} {plan.stem} {plan.task}"
        if reused:
            self._console.print(f"{place}: done before", style="dim")
            return
        if self._status is not None:
            self._status.stop()
            self._status = None
        self._took.append(time.monotonic() - self._began)
        self._shot_s = max(self._took)
        left = len(self._plans) - plan.index - 1
        eta = f", about {clock(left * sum(self._took) / len(self._took))} left" if left else ""
        self._console.print(f"{place}: {clock(self._took[-1])}{eta}")
        self._clear_previews()
        self._write()

    def done(self) -> None:
        """The film is there."""
        self._clear_previews()
        self._write()

    def stopped(self) -> None:
        """The command ends before the film is there: the page no longer waits for it."""
        if self._status is not None:
            self._status.stop()
        if self._plans:
            with suppress(Exception):  # what ended the command is told, not what it led to
                self._clear_previews()
                self._page.write(self._plans, self._finished, stopped=True)

    def _write(self, preview: Path | None = None) -> None:
        from memento_model.story.page import Alive

        alive = Alive(at=datetime.now().astimezone(), shot_s=self._shot_s)
        self._page.write(self._plans, self._finished, preview, alive=alive)
        self._written = time.monotonic()

    def _clear_previews(self) -> None:
        place = self._folder / "preview"
        for path in [*place.glob("*.jpg"), *place.glob(".*.jpg")]:
            path.unlink()
        if place.is_dir() and not any(place.iterdir()):
            place.rmdir()


def clock(seconds: float) -> str:
    """A time for people: `1.4 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
