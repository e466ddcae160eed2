"""Signs of life of every process of a run, so that the others can say who was lost.

Each process writes the point it is at into the run's key-value store, and once a second, from a thread, a
counter; a process that fails writes its last words. Nothing is read unless something went wrong.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from datetime import timedelta

import torch.distributed as dist

EVERY_S = 1.0
"""Between signs of life."""
PATIENCE_S = 4.0
"""Without a sign for this long, a process is gone; others' last words are awaited as long."""


class RollCall:
    """This process's signs of life, and its look at those of the others.

    Args:
        rank, size: of the run; its store's address is in the environment, as torchrun and Ray Train leave it.
    """

    def __init__(self, rank: int, size: int) -> None:
        self._rank, self._size = rank, size
        self._where, self._beat = "the start", 0
        restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        # A connection of its own: the process group's is busy while a call waits.
        store = dist.TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=False,
            timeout=timedelta(seconds=30),
        )
        self._store = dist.PrefixStore(f"memento/roll_call/{restart}", store)
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._sign()
        self._thread = threading.Thread(target=self._keep_signing, name="signs of life", daemon=True)
        self._thread.start()

    def at(self, where: str) -> None:
        """Tell where this process is."""
        self._where = where
        self._write("where", where)

    def last_words(self, error: BaseException) -> None:
        """Tell the others why this process ends."""
        line = (str(error).strip().split("\n", 1)[0] or "no message")[:300]
        with contextlib.suppress(RuntimeError):  # the store may be gone: nobody is left to read it
            self._write("words", f"{type(error).__name__} at {self._where}: {line}")

    def stop(self) -> None:
        """No more signs."""
        self._ended.set()
        self._thread.join(timeout=2 * EVERY_S)

    def describe(self, cause: str) -> str:
        """One line for the user: who was lost, at which point, as far as can be told.

        Args:
            cause: the broken connection in PyTorch's words.
        """
        try:
            found = self._look_around()
            self._write("saw", found)  # for those who notice later, when this process is gone as well
        except RuntimeError:
            found = "the machine or process that started the run is gone"
        return (
            f"process {self._rank} of {self._size} stopped at {self._where}: {found} ({cause}); "
            "start the run again and it goes on from what it saved last"
        )

    def _look_around(self) -> str:
        others = [rank for rank in range(self._size) if rank != self._rank]
        places, before = self._read("where", others), self._read("beat", others)
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            if words := self._read("words", others):
                return "; ".join(f"process {rank} failed with {said}" for rank, said in words.items())
            if saw := self._read("saw", others):
                return next(iter(saw.values()))
            time.sleep(EVERY_S / 4)
        after = self._read("beat", others)
        silent = [rank for rank in others if before.get(rank) == after.get(rank)]
        if silent:
            names = ", ".join(f"{rank} (last seen at {places.get(rank, 'the start')})" for rank in silent)
            return f"no sign of life from process {names}: killed, out of memory, or its machine is gone"
        behind = {rank: place for rank, place in places.items() if place != self._where}
        if behind:
            names = ", ".join(f"{rank} (at {place})" for rank, place in behind.items())
            return f"process {names} is alive but did not get here in time"
        return "all processes are alive, but a message between them was lost"

    def _keep_signing(self) -> None:
        while not self._ended.wait(EVERY_S):
            try:
                self._sign()
            except RuntimeError:
                return  # the store is gone; whoever waits for it finds out

    def _sign(self) -> None:
        self._beat += 1
        self._write("beat", str(self._beat))

    def _write(self, what: str, value: str) -> None:
        with self._lock:
            self._store.set(f"{what}/{self._rank}", value)

    def _read(self, what: str, ranks: list[int]) -> dict[int, str]:
        with self._lock:
            return {
                rank: self._store.get(f"{what}/{rank}").decode()
                for rank in ranks
                if self._store.check([f"{what}/{rank}"])
            }
