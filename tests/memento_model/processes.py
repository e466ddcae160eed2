"""Real processes that run functions together: started once, used by many tests."""

from __future__ import annotations

import io
import multiprocessing
import os
import socket

import torch

from memento_model.distributed.launch import launched


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Crew:
    """`size` processes; every call of `run` is a run of its own with all of them.

    They are forked from a server that has imported the model once.
    """

    def __init__(self, size):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.memento_model.spread"])
        self.size, self._pipes, self.processes = size, [], []
        for rank in range(size):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(there, rank, size), daemon=True)
            process.start()
            there.close()
            self._pipes.append(here)
            self.processes.append(process)
        for pipe in self._pipes:
            assert pipe.poll(200), "a process did not start"
            pipe.recv()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for pipe in self._pipes:
            pipe.close()
        for process in self.processes:
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()

    def run(self, function, *args, context_parallel=1, timeout_s=60.0):
        """What `function(world, *args)` returned in each process; its exception where it raised one.

        None stands for a process that is gone.
        """
        settings = {"context_parallel": context_parallel, "device": "cpu", "timeout_s": timeout_s}
        port = free_port()
        for pipe in self._pipes:
            pipe.send_bytes(_pack((function, args, settings, port)))
        answers = []
        for pipe in self._pipes:
            try:
                assert pipe.poll(100), "a process neither answered nor ended"
                answers.append(_unpack(pipe.recv_bytes()))
            except EOFError:
                answers.append(None)
        return answers

    def results(self, function, *args, **settings):
        """Like `run`, where an error anywhere is a failure."""
        answers = self.run(function, *args, **settings)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return answers


def _pack(value):
    """By value: tensors in a pipe would share their memory with the receiver."""
    packed = io.BytesIO()
    torch.save(value, packed)
    return packed.getvalue()


def _unpack(data):
    return torch.load(io.BytesIO(data), weights_only=False)


def _serve(pipe, rank, size):
    torch.set_num_threads(1)
    pipe.send("here")
    while True:
        try:
            function, args, settings, port = _unpack(pipe.recv_bytes())
        except EOFError:
            return
        os.environ |= {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }  # fmt: skip
        try:
            with launched(**settings) as world:
                answer = function(world, *args)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            answer = error
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()
        pipe.send_bytes(_pack(answer))
