"""Ctrl-C and SIGTERM (which clusters send) end a training run at a step, with a checkpoint."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memento_model.distributed.launch import World

SIGNALS = (signal.SIGINT, signal.SIGTERM)
AGAIN_S = 1.0
"""What comes sooner after the first signal is the same wish: `timeout` and torchrun send theirs twice."""
SAID = b"\nstopping: this step is finished and a checkpoint written; once more ends it at once\n"


@contextmanager
def stop_at_a_step(world: World) -> Iterator[Callable[[], bool]]:
    """Meanwhile the first signal is only remembered; the second raises KeyboardInterrupt where it falls.

    Runs of several processes keep the signals' usual effect: a step's end cannot be agreed on while
    torchrun ends the processes one by one.

    Args:
        world: the processes of the run.

    Yields:
        Tells whether the run shall stop.
    """
    asked: list[float] = []

    def ask(*_: Any) -> None:
        if not asked:
            os.write(2, SAID)  # a signal may fall into a print, which cannot be entered twice
            asked.append(time.monotonic())
        elif time.monotonic() - asked[0] > AGAIN_S:
            raise KeyboardInterrupt

    def stopped() -> bool:
        return bool(asked)

    if world.mesh is not None or threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    before = {number: signal.signal(number, ask) for number in SIGNALS}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
