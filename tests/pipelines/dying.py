"""`memento generate` in a process of its own that kills itself at a given moment."""

from __future__ import annotations

import io
import multiprocessing
import os
import resource
import signal
import sys
from pathlib import Path

from curation.engine.stage import StopRun
from pipelines import generate_command
from pipelines.generate_progress import Progress

TINY = {"steps": 3, "size": "32x48", "frames": 5}
PRELOADED = ["memento_model.story.loading", "memento_model.story.page", "pipelines.generate_command"]


def generate(
    story: Path, output: Path, moment: tuple[str, str, int] | None = None, told: Path | None = None, **order
) -> None:
    """Make a story with the debug model of random weights.

    Args:
        story: the script.
        output: as `--output`.
        moment: ("step", stem, n): at the n-th solver step of a shot; ("file", stem, n): before the n-th file
            of the shot gets its final name; ("full", stem, n): not killed, but from this shot on no file can
            grow beyond n bytes. None lives on.
        told: gets the line for the user if there is one; the exit code is 2 then.
        **order: further fields of `Order`.
    """
    import torch
    from rich.console import Console

    torch.set_num_threads(1)
    if moment is not None:
        _die_at(*moment)
    asked = generate_command.Order(stories=[story], output=output, **{**TINY, **order})
    named = {"model": "debug", "device": "cpu"}
    try:
        generate_command.main(asked, named, Console(file=io.StringIO()))
    except StopRun as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        if told is None:
            raise
        told.write_text(str(error))
        sys.exit(2)


def _die_at(kind: str, stem: str, number: int) -> None:
    {"full": _no_room, "step": _die_at_a_step, "file": _die_at_a_file}[kind](stem, number)


def _no_room(stem: str, number: int) -> None:
    began = Progress.begin

    def begin(self, plan):
        if plan.stem == stem:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (number, resource.RLIM_INFINITY))
        began(self, plan)

    Progress.begin = begin


def _die_at_a_step(stem: str, number: int) -> None:
    told = Progress.step

    def step(self, plan, now, steps, preview):
        told(self, plan, now, steps, preview)
        if (plan.stem, now) == (stem, number):
            os.kill(os.getpid(), signal.SIGKILL)

    Progress.step = step


def _die_at_a_file(stem: str, number: int) -> None:
    moved, real = [], os.replace

    def replace(source, target):
        if stem in Path(target).name and "preview" not in str(target):
            moved.append(target)
            if len(moved) == number:
                os.kill(os.getpid(), signal.SIGKILL)
        real(source, target)

    os.replace = replace


def in_a_process(*arguments, **order) -> int:
    """The exit code of `generate` in a process of its own: -9 if it was killed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=generate, args=arguments, kwargs=order)
    process.start()
    process.join(280)
    return process.exitcode
