"""Real processes that run functions together: started once, used by many tests."""

from __future__ import annotations

import os
import socket
import traceback

import torch

from memento_model.launch import launched


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Crew:
    """`size` processes; every call of `run` is a run of its own with all of them."""

    def __init__(self, size):
        context = torch.multiprocessing.get_context("spawn")
        self.size, self._pipes, self.processes = size, [], []
        for rank in range(size):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(there, rank, size), daemon=True)
            process.start()
            there.close()
            self._pipes.append(here)
            self.processes.append(process)

    def run(self, function, *args, context_parallel=1, timeout_s=60.0):
        """What `function(world, *args)` returned in each process; its error, as text, where it raised one."""
        settings = {"context_parallel": context_parallel, "device": "cpu", "timeout_s": timeout_s}
        port = free_port()
        for pipe in self._pipes:
            pipe.send((function, args, settings, port))
        answers = []
        for pipe in self._pipes:
            try:
                answers.append(pipe.recv() if pipe.poll(120) else "no answer")
            except EOFError:
                answers.append("gone")
        return answers

    def results(self, function, *args, **settings):
        """Like `run`, where an error anywhere is a failure."""
        answers = self.run(function, *args, **settings)
        assert not any(isinstance(answer, str) for answer in answers), "\n".join(map(str, answers))
        return answers

    def close(self):
        for pipe in self._pipes:
            pipe.close()
        for process in self.processes:
            process.join(10)
            if process.is_alive():
                process.kill()


def _serve(pipe, rank, size):
    torch.set_num_threads(1)
    while True:
        try:
            function, args, settings, port = pipe.recv()
        except EOFError:
            return
        os.environ |= {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }  # fmt: skip
        try:
            with launched(**settings) as world:
                answer = function(world, *args)
        except Exception as error:
            answer = f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()
        pipe.send(answer)
