"""What a user sees while work goes on: what is counted, which stage is at work, how long it will take."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from rich.console import Console, RenderableType
from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task
from rich.progress_bar import ProgressBar
from rich.table import Column
from rich.text import Text

from benchmark.words import counted
from curation.engine.runner import Progress as ProgressCallback
from curation.engine.runner import groups, title
from curation.engine.stage import Plan
from pipelines.generate_progress import clock
from pipelines.terminal import print_line

Passed = Callable[[str], int]
"""How many rows have passed the stage of that name."""
UNITS = {"film": "film", "segment": "segment", "sequence": "sequence"}
"""Grain of rows -> what people call one of them."""
QUIET_S = 60.0
"""Where the output is no terminal, a group of stages says at most this often how far it is."""
MANY = 2
"""More stages than these are named by the first and the last."""


@dataclass(frozen=True)
class Group:
    """Stages that rows pass one after the other without waiting for each other.

    Attributes:
        number: from 1.
        of: how many groups there are.
        unit: what is counted, in the singular.
        stages: their names.
    """

    number: int
    of: int
    unit: str
    stages: tuple[str, ...]

    @property
    def names(self) -> str:
        """The stages, in short."""
        if len(self.stages) > MANY:
            return f"{self.stages[0]} ... {self.stages[-1]}"
        return ", ".join(self.stages)


def groups_of(plan: Plan) -> dict[str, Group]:
    """The groups of a plan under the titles by which the runner calls them."""
    found, grain = [], "film"
    for fold, stages, _ in groups(plan):
        if fold is not None:
            grain = fold.grain
            continue
        found.append((title(stages), UNITS[grain], tuple(stage.name for stage, _ in stages)))
    return {
        name: Group(number, len(found), unit, stages) for number, (name, unit, stages) in enumerate(found, 1)
    }


def time_left(done: int, total: int, took_s: float, at_once: int = 1) -> str:
    """`about 3 min left`, from the rows that are done; nothing before the first and after the last.

    As long as fewer are done than are worked on `at_once`, the others may be about to come: `at most`.
    """
    if not 0 < done < total:
        return ""
    left = took_s / done * (total - done)
    word = "at most" if done < at_once else "about"
    return f"{word} {clock(left) if left < 60 else clock(60 * round(left / 60)).removesuffix(' 0 s')} left"


def stage_at_work(group: Group, total: int, passed: Passed) -> str:
    """`crop 1/4`: the first stage with work left and how many rows have passed it; "" for one or none."""
    for stage in group.stages if len(group.stages) > 1 else ():
        if (number := passed(stage)) < total:
            return f"{stage} {number}/{total}"
    return ""


@contextlib.contextmanager
def show_progress(
    console: Console, known: Mapping[str, Group], passed: Passed = lambda _: 0
) -> Iterator[ProgressCallback]:
    """One line for each group of stages: moving on a terminal, a calm log elsewhere.

    Args:
        console: where to.
        known: the groups by the names with which the callback is called.
        passed: how many rows have passed a stage, of groups with several stages.
    """
    if console.is_terminal:
        yield from _moving(console, known, passed)
    else:
        log, over = _Log(console, known, passed), threading.Event()
        watch = threading.Thread(target=log.watch, args=(over,), name="progress", daemon=True)
        watch.start()
        try:
            yield log
        finally:
            over.set()
            watch.join()


# -- a terminal ---------------------------------------------------------------------------------


def _moving(console: Console, known: Mapping[str, Group], passed: Passed) -> Iterator[ProgressCallback]:
    columns = (SpinnerColumn(finished_text="[green]*"), _Counted(), _Now(passed), _Bar(passed), _Clock())
    tasks = {}
    with Progress(*columns, console=console) as bars:

        def update(names: str, done: int, total: int) -> None:
            if names not in tasks:
                tasks[names] = bars.add_task(names, total=total, group=known[names])
            bars.update(tasks[names], completed=done, total=total)

        yield update


class _Counted(ProgressColumn):
    """`12/53 films`."""

    def __init__(self) -> None:
        super().__init__(Column(no_wrap=True, min_width=14))

    def render(self, task: Task) -> Text:
        group: Group = task.fields["group"]
        return Text(f"{int(task.completed)}/{counted(int(task.total or 0), group.unit)}")


class _Now(ProgressColumn):
    """The first stage that has work left, or all of them when there is none."""

    def __init__(self, passed: Passed) -> None:
        super().__init__(Column(no_wrap=True, min_width=19))
        self._passed = passed

    def render(self, task: Task) -> Text:
        group, total = task.fields["group"], int(task.total or 0)
        stage = None if task.finished else stage_at_work(group, total, self._passed)
        return Text(stage) if stage else Text(group.names, style="dim")


class _Bar(ProgressColumn):
    """How many rows have passed how many of the stages."""

    def __init__(self, passed: Passed) -> None:
        super().__init__(Column(no_wrap=True))
        self._passed = passed

    def render(self, task: Task) -> RenderableType:
        group, total = task.fields["group"], int(task.total or 0)
        passed = sum(min(total, max(int(task.completed), self._passed(stage))) for stage in group.stages)
        return ProgressBar(total=max(1, total * len(group.stages)), completed=passed, width=10)


class _Clock(ProgressColumn):
    """The time it took so far, and about what is left."""

    def __init__(self) -> None:
        super().__init__(Column(no_wrap=True))

    def render(self, task: Task) -> Text:
        took_s = (task.finished_time if task.finished else task.elapsed) or 0.0
        left = time_left(int(task.completed), int(task.total or 0), took_s, os.cpu_count() or 1)
        took = clock(took_s) if took_s >= 10 else f"{took_s:.0f} s"  # tenths would flicker
        return Text(f"{took}{left and ', '}{left}", style="" if left else "dim")


# -- a log --------------------------------------------------------------------------------------


class _Log:
    """A line when a group is done, and once a minute in between, whether something has moved or not."""

    def __init__(self, console: Console, known: Mapping[str, Group], passed: Passed) -> None:
        self._console, self._known, self._passed = console, known, passed
        self._began: dict[str, float] = {}
        self._told = 0.0
        self._now: tuple[str, int, int] | None = None
        self._lock = threading.Lock()

    def __call__(self, names: str, done: int, total: int) -> None:
        with self._lock:
            now, group = time.monotonic(), self._known[names]
            if names not in self._began:
                self._began[names] = self._told = now
            if done < total:
                self._now = names, done, total
                return
            self._now = None
            took = clock(now - self._began[names])
            print_line(self._console, f"{self._head(group)} {counted(total, group.unit)} in {took}")

    def watch(self, over: threading.Event) -> None:
        """Say how far it is once a minute, until all is over."""
        while not over.wait(min(1.0, QUIET_S)):
            self.tell()

    def tell(self) -> None:
        """How far it is, unless that was said less than a minute ago."""
        with self._lock:
            now = time.monotonic()
            if self._now is None or now - self._told < QUIET_S:
                return
            self._told = now
            names, done, total = self._now
            group, took = self._known[names], now - self._began[names]
            so_far = f"{done} of {counted(total, group.unit)} after {clock(took)}"
            told = [so_far, time_left(done, total, took, os.cpu_count() or 1)]
            if stage := stage_at_work(group, total, self._passed):
                told.append(f"now {stage}")
            print_line(self._console, f"{self._head(group)} {', '.join(filter(None, told))}")

    @staticmethod
    def _head(group: Group) -> str:
        return f"  step {group.number} of {group.of}, {group.names}:"
