"""A story made by several processes: picks and latents of one process, and any number can go on."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from memento_model.config import Compat
from memento_model.distributed.launch import World
from memento_model.errors import CheckpointError, LaunchError
from memento_model.story.experts import place, text_reader
from memento_model.story.generate import QueryElection, StoryGenerator
from memento_model.story.memory import EXPERTS, MementoMemory
from memento_model.story.plan import GenerateSettings
from memento_model.story.together import dismiss, follow
from tests.memento_model.processes import Crew
from tests.memento_model.test_generate import StopsAt
from tests.memento_model.tiny import CONFIG, GRID, models, query, story, transformer

SETTINGS = GenerateSettings(steps=3, grid=GRID)
CPU = torch.device("cpu")
ONE = World(device=CPU)


class Watched(StoryGenerator):
    """Keeps the latents of its shots."""

    def __init__(self, *args):
        super().__init__(*args)
        self.latents = []

    def _sample(self, *args):
        self.latents.append(super()._sample(*args))
        return self.latents[-1]


def tell(world, folder, shots=4, num_shots=None, placement="both", die_in=None):
    """What a process of `memento generate` does: (latents, what was reused) of the first, None of others."""
    experts = {expert: transformer(seed) for seed, expert in enumerate(EXPERTS)}
    elect = {
        expert: QueryElection(query(seed), text_reader(experts[expert], CPU))
        for seed, expert in enumerate(EXPERTS)
    }
    [pair] = place([experts], placement, CPU, world)
    if not world.is_first:
        follow(world if die_in is None else Dies(world, die_in), pair, None)
        return None
    made = replace(models(), experts=pair, world=world)
    watcher = StopsAt()
    memory = MementoMemory(elect, CONFIG.bank_size, Compat())
    generator = Watched(made, memory, SETTINGS, folder, watcher)
    generator.run(story(shots), num_shots=num_shots)
    dismiss(world)
    return generator.latents, [reused for _, reused in watcher.shots]


class Dies:
    """A process's world until it comes to a shot."""

    def __init__(self, world, where):
        self._world, self._where = world, where
        self.device = world.device

    def share(self, value):
        return self._world.share(value)

    def meet(self, where):
        if where == self._where:
            os.kill(os.getpid(), signal.SIGKILL)
        self._world.meet(where)


def memories(folder):
    return [json.loads(path.read_text())["memory"] for path in sorted(folder.glob("*.json"))]


def frames(folder):
    return [[seen[expert]["frames"] for expert in EXPERTS] for seen in memories(folder)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    return folder, tell(ONE, folder)[0]


@pytest.mark.parametrize("placement", ["both", "shard"])
def test_two_processes_make_the_story_of_one(crew_of_two, tmp_path, alone, placement):
    told = crew_of_two.results(tell, tmp_path, 4, None, placement, context_parallel=2)
    assert told[1] is None
    folder, wanted = alone
    assert frames(tmp_path) == frames(folder)
    assert any(len(seen["low"]["frames"]) == CONFIG.bank_size for seen in memories(tmp_path))  # an election
    assert len(told[0][0]) == len(wanted) == 4
    for found, expected in zip(told[0][0], wanted, strict=True):
        assert (found - expected).abs().max() <= 1e-5


def test_another_number_of_processes_goes_on(crew_of_two, tmp_path, alone):
    crew_of_two.results(tell, tmp_path, 4, 2, context_parallel=2)
    latents, reused = tell(ONE, tmp_path)
    assert reused == [True, True, False, False]
    assert frames(tmp_path) == frames(alone[0])
    for found, expected in zip(latents, alone[1][2:], strict=True):
        assert (found - expected).abs().max() <= 1e-5
    _, reused = crew_of_two.results(tell, tmp_path, context_parallel=2)[0]
    assert reused == [True] * 4


def test_a_lost_process_ends_the_story_in_one_line(tmp_path, alone):
    with Crew(2) as crew:
        told, gone = crew.run(tell, tmp_path, 4, None, "both", "shot 01_02", context_parallel=2)
    assert gone is None
    assert isinstance(told, LaunchError)
    assert "process 0 of 2 stopped at shot 01_02: no sign of life from process 1" in str(told)
    assert str(told).endswith("start the run again and it goes on from what it saved last")
    assert len(str(told).splitlines()) == 1
    _, reused = tell(ONE, tmp_path)
    assert reused == [True, False, False, False]


def one_head(world):
    place([{"low": transformer(0, replace(CONFIG, num_heads=1))}], "both", CPU, world)


def test_what_cannot_be_spread_is_one_line(crew_of_two):
    for answer in crew_of_two.run(one_head, context_parallel=2):
        assert isinstance(answer, LaunchError)
        assert str(answer) == "2 processes cannot share 1 attention heads; start at most 1"
    with pytest.raises(CheckpointError, match="--placement shard shares the weights out over several"):
        place([{"low": transformer(0)}], "shard", CPU)
    with pytest.raises(CheckpointError, match="--attention: attention backend 'flash3' does not run on cpu"):
        place([{"low": transformer(0)}], "both", CPU, attention="flash3")


def test_kernels_are_put_around_the_experts():
    made = transformer(0)
    [pair] = place([{"low": made, "high": made}], "both", CPU, attention="math")
    assert pair("low").blocks[0].attn1.processor._attention_backend == "_native_math"
    assert not made.gradient_checkpointing
