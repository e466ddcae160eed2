"""Join or start Ray, quietly, and check that every node can reach the same files."""

from __future__ import annotations

import logging
import os
import socket
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from curation.engine.stage import StopRun


class NoLocalRay(StopRun):
    """The Ray that was to start on this machine did not; `said` is Ray's reason in a few words."""

    def __init__(self, said: str) -> None:
        super().__init__(
            f"Ray did not start on this machine ({said}); it may be short of memory or busy: run the same "
            "command again, or do without Ray"
        )
        self.said = said


@contextmanager
def cluster(shared_folder: Path) -> Iterator[str]:
    """A connected Ray: `RAY_ADDRESS` joins a running cluster, otherwise one starts on this machine.

    Args:
        shared_folder: must be reachable under the same path from every node.

    Yields:
        One line that says where the run takes place.

    Raises:
        NoLocalRay: no address was given, and Ray does not start on this machine.
        StopRun: a node does not see the folder, or the cluster cannot be joined.
    """
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray
        import ray.data
    joined = ray.is_initialized()
    address = os.environ.get("RAY_ADDRESS")
    if not joined:
        if address:
            _knock(address)
        try:
            ray.init(
                address=address or "local",
                include_dashboard=None if address else False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env=None,
            )
        except Exception as error:  # Ray raises bare exceptions where it does not come up in time
            ray.shutdown()  # what did start must not stay behind
            raise (StopRun(_nobody(address, error)) if address else NoLocalRay(_said(error))) from error
    for name in ("ray.data", "ray"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        nodes = check_nodes(shared_folder)
        cpus = int(ray.cluster_resources().get("CPU", 0))
        place = f"Ray cluster at {address}" if address else "a local Ray cluster"
        yield f"{place}: {nodes} node{'s' * (nodes != 1)}, {cpus} CPUs"
    finally:
        if not joined:
            ray.shutdown()


def _knock(address: str) -> None:
    """Try the port first: Ray itself waits minutes for a cluster that is not there."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():  # `auto`: Ray looks for a cluster on this machine, quickly
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise StopRun(_nobody(address, error)) from error


def _said(error: BaseException) -> str:
    first_line = (str(error).splitlines() or [type(error).__name__])[0]
    return first_line.partition(". ")[0].rstrip(".")


def _nobody(address: str | None, error: BaseException) -> str:
    return (
        f"RAY_ADDRESS={address}: no Ray cluster answers there ({_said(error)}); "
        "start one with `ray start --head` or unset RAY_ADDRESS"
    )


def check_nodes(shared_folder: Path) -> int:
    """Number of nodes, after each has read a token in the folder.

    Raises:
        StopRun: names the nodes that do not see the folder.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) == 1:
        return 1
    token = uuid.uuid4().hex
    file = shared_folder / f".token-{token}"
    file.write_text(token)

    @ray.remote(num_cpus=0)
    def sees(path: str) -> bool:
        try:
            return Path(path).read_text() == token
        except OSError:
            return False

    try:
        answers = ray.get(
            [
                sees.options(
                    scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                ).remote(str(file))
                for node in nodes
            ]
        )
    finally:
        file.unlink(missing_ok=True)
    blind = [node["NodeManagerAddress"] for node, seen in zip(nodes, answers, strict=True) if not seen]
    if blind:
        raise StopRun(
            f"{shared_folder}: not the same folder on node {', '.join(blind)}; "
            "put the output on a filesystem that every node mounts at this path"
        )
    return len(nodes)
