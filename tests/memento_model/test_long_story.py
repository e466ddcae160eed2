"""Sixty-four shots need the memory of eight."""

from __future__ import annotations

import gc
import tracemalloc

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from memento_model.story.generate import StoryGenerator
from memento_model.story.image_embed import ThumbnailEmbedder
from memento_model.story.plan import GenerateSettings
from memento_model.story.storymem import StoryMemMemory
from tests.memento_model.tiny import GRID, memento_memory, models, story

SHOTS, EARLY, LATE = 64, 8, 64
PYTHON_GROWTH = 128 << 10
"""Bytes by which all but tensors may grow in 56 shots: plans and names. A picture has 4608: one kept of each
shot would be twice too much."""


def tensor_bytes():
    """Bytes behind all dense tensors that are alive (other tests may have left sparse ones)."""
    storages = {}
    for found in gc.get_objects():
        if not issubclass(type(found), torch.Tensor) or found.layout is not torch.strided:
            continue
        if found.device.type != "meta":
            storage = found.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def python_bytes():
    """Bytes that Python and NumPy hold, but for the interpreter's table of names, which grows in jumps."""
    traces = tracemalloc.take_snapshot().statistics("filename")
    return sum(one.size for one in traces if not one.traceback[0].filename.endswith("pathlib.py"))


class Meter:
    """An early and the last shot: peak of the tensors, what is held at the beginning, what is used on top."""

    def __init__(self):
        self.tensors, self.held, self.used, self.shots = {}, {}, {}, 0
        self.before = 0

    def story(self, plans, aside):
        pass

    def begin(self, plan):
        if plan.index + 1 in (EARLY, LATE):
            gc.collect()
            self.held[plan.index + 1] = python_bytes()
            self.before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()

    def step(self, plan, number, steps, preview):
        shot = plan.index + 1
        if shot in (EARLY, LATE):
            peak = tracemalloc.get_traced_memory()[1] - self.before
            self.used[shot] = max(peak, self.used.get(shot, 0))
            self.tensors[shot] = max(tensor_bytes(), self.tensors.get(shot, 0))
            tracemalloc.reset_peak()  # what looking at the tensors takes is not the story's

    def shot(self, plan, record, *, reused):
        self.step(plan, 0, 0, None)
        self.shots += 1


@pytest.mark.parametrize("name", ["memento", "storymem"])
def test_the_last_shot_needs_what_an_early_one_did(tmp_path, name):
    made = models()
    memory = memento_memory(made) if name == "memento" else StoryMemMemory(ThumbnailEmbedder())
    settings = GenerateSettings(mode=name, steps=1, grid=GRID)
    meter, script = Meter(), story(SHOTS, [True] * SHOTS)
    made.text.encode([shot.prompt for shot in script.shots])  # its cache of words is not the story's
    tracemalloc.start()
    try:
        StoryGenerator(made, memory, settings, tmp_path, meter).run(script)
    finally:
        tracemalloc.stop()
    assert meter.shots == SHOTS
    # StoryMem keeps one small vector of every keyframe, so that none is stored twice
    vectors = 0 if name == "memento" else SHOTS * 3 * 180 * 4 * 3
    assert 0 <= meter.tensors[LATE] - meter.tensors[EARLY] <= vectors
    assert meter.held[LATE] - meter.held[EARLY] < PYTHON_GROWTH
    assert meter.used[LATE] - meter.used[EARLY] < PYTHON_GROWTH
