"""From the environment to a running set of processes: one process, torchrun's, or those of Ray Train.

    torchrun --nproc-per-node 8 $(which memento) train ...

Processes form a mesh (data, context): the processes of one context group share the tokens of a sample, the
groups work on different samples. Neighbouring ranks share a context group, so its exchanges stay inside a
machine.

A process that dies, fails or hangs ends the run on all others with one line that names it: collective calls
time out, `World.meet` is a barrier that watches the clock, and `memento_model.distributed.roll_call` tells
who was lost.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from memento_model.distributed.roll_call import RollCall
from memento_model.errors import LaunchError

T = TypeVar("T")
TIMEOUT_S = 600.0
"""The longest that a process waits for another; more than the slowest thing one does alone (a checkpoint)."""
_BROKEN = re.compile(
    r"gloo|nccl|monitoredBarrier|[Cc]onnection (closed|reset|refused)|[Bb]roken pipe|[Tt]imed out waiting",
)


@dataclass(frozen=True, kw_only=True)
class World:
    """Where this process stands among those of the run.

    Attributes:
        rank, size: of this process, and how many there are.
        device: that this process computes on.
        mesh: axes `data` and `context`; None for a single process.
        control: process group on the CPU for barriers and small objects; None for a single process.
        roll_call: signs of life; None for a single process.
        timeout_s: the longest wait for another process.
    """

    rank: int = 0
    size: int = 1
    device: torch.device
    mesh: DeviceMesh | None = None
    control: Any = None
    roll_call: RollCall | None = None
    timeout_s: float = TIMEOUT_S

    @property
    def is_first(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0

    @property
    def data_size(self) -> int:
        """Samples worked on at the same time."""
        return 1 if self.mesh is None else self.mesh["data"].size()

    @property
    def data_rank(self) -> int:
        """Which of them this process works on; equal within a context group."""
        return 0 if self.mesh is None else self.mesh["data"].get_local_rank()

    @property
    def context_size(self) -> int:
        """Processes that share a sample's tokens."""
        return 1 if self.mesh is None else self.mesh["context"].size()

    @property
    def context_group(self) -> Any:
        """Process group of those; None for a single process."""
        return None if self.mesh is None else self.mesh["context"].get_group()

    def meet(self, where: str) -> None:
        """Wait for all others at a named point, e.g. `step 12`; call it once per step.

        Raises:
            RuntimeError: somebody did not come within `timeout_s`; `launched` turns it into one line.
        """
        if self.roll_call is None:
            return
        self.roll_call.at(where)
        dist.monitored_barrier(self.control, timedelta(seconds=self.timeout_s), wait_all_ranks=True)

    def share(self, value: T) -> T:
        """The first process's value (anything that can be pickled) on every process."""
        if self.mesh is None:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def same(self, tensor: Tensor) -> Tensor:
        """The first process's numbers on every process, in place."""
        if self.mesh is not None:
            dist.broadcast(tensor, src=0)
        return tensor


@contextlib.contextmanager
def launched(
    *, context_parallel: int = 1, device: str | None = None, timeout_s: float = TIMEOUT_S
) -> Iterator[World]:
    """Join the run that the environment describes; leave it in order at the end.

    Args:
        context_parallel: processes that share one sample's tokens.
        device: `cuda` or `cpu`; None takes CUDA where there is one.
        timeout_s: the longest wait for another process.

    Yields:
        The world. A process group that exists already (Ray Train's) is used and left as it is.

    Raises:
        LaunchError: the numbers do not fit, or another process was lost on the way.
    """
    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if not dist.is_initialized() and int(os.environ.get("WORLD_SIZE", "1")) == 1:
        if context_parallel != 1:
            raise LaunchError(
                f"context_parallel is {context_parallel}, but this is one process; "
                f"start it with torchrun --nproc-per-node {context_parallel}"
            )
        yield World(device=torch.device(kind), timeout_s=timeout_s)
        return
    own_group = not dist.is_initialized()
    world = _join(kind, context_parallel, timeout_s)
    assert world.roll_call is not None
    try:
        yield world
        world.meet("the end")
    except BaseException as error:
        if not is_broken(error):
            world.roll_call.last_words(error)
            raise
        with _not_terminated():
            raise LaunchError(world.roll_call.describe(_first_line(error))) from error
    else:
        if own_group:
            dist.destroy_process_group()
    finally:
        world.roll_call.stop()


@contextlib.contextmanager
def _not_terminated() -> Iterator[None]:
    """Time to say who was lost: torchrun ends the others as soon as one process has died."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def is_broken(error: BaseException) -> bool:
    """Whether an error comes from the connection to other processes, not from this one's work."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and _BROKEN.search(str(error)) is not None
    )


def _join(kind: str, context_parallel: int, timeout_s: float) -> World:
    wait, device = timedelta(seconds=timeout_s), _own_device(kind)
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo"
        try:
            dist.init_process_group(backend, timeout=wait, device_id=device if kind == "cuda" else None)
        except dist.DistError as error:
            raise LaunchError(
                f"not all {os.environ['WORLD_SIZE']} processes of the run came together within "
                f"{timeout_s:.0f} s: {_first_line(error)}"
            ) from error
    rank, size = dist.get_rank(), dist.get_world_size()
    if size % context_parallel:
        raise LaunchError(f"context_parallel is {context_parallel}, which does not divide {size} processes")
    mesh = init_device_mesh(
        kind, (size // context_parallel, context_parallel), mesh_dim_names=("data", "context")
    )
    roll_call = RollCall(rank, size)
    return World(
        rank=rank,
        size=size,
        device=device,
        mesh=mesh,
        control=dist.new_group(backend="gloo", timeout=wait),
        roll_call=roll_call,
        timeout_s=timeout_s,
    )


def _own_device(kind: str) -> torch.device:
    if kind != "cuda":
        return torch.device(kind)
    local, present = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local >= present:
        raise LaunchError(
            f"process {local} of this machine has no GPU: {present} here; start at most {present} a machine"
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


def _first_line(error: BaseException) -> str:
    line = str(error).strip().split("\n", 1)[0]
    return re.sub(r"^\[\S+\.cc:\d+\] ", "", line)[:120]  # a place in PyTorch's sources helps nobody
