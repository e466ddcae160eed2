"""What is remembered: Memento's election, StoryMem's rules, nothing at all; saved and put back."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from memento_model.conditioning import Memory
from memento_model.config import Compat
from memento_model.story.image_embed import ThumbnailEmbedder
from memento_model.story.memory import (
    ComingShot,
    Forgetful,
    MadeShot,
    MementoMemory,
    Pool,
    Source,
)
from memento_model.story.storymem import StoryMemMemory, StoryMemRules, keyframes

FRAMES = 17


def shot(number, video=None):
    """A shot whose frame i has the grey value i / 16 - 0.45; latents repeat the value."""
    if video is None:
        values = torch.arange(FRAMES) / 16 - 0.45
        video = values[None, :, None, None].expand(3, FRAMES, 16, 16)
    return MadeShot(
        name=f"01_{number:02d}",
        start_frame=FRAMES * (number - 1),
        video_cthw=video,
        encode=lambda images: images[:, :1, ::8, ::8].expand(-1, 16, -1, -1),
    )


def coming(number):
    rows = torch.zeros(2, 4)
    return ComingShot(start_frame=FRAMES * (number - 1), text_td=rows, global_text_td=rows)


class LikesLate:
    """Elects the latest frames and notes what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, memory, positions, shot):
        self.asked.append((positions, shot.start_frame))
        order = sorted(range(len(positions)), key=lambda i: (-positions[i], -i))
        return order[:8], {"scores": positions}


def test_all_is_taken_while_it_fits_and_elected_when_it_does_not():
    elect = {"high": LikesLate(), "low": LikesLate()}
    memory = MementoMemory(elect, 8, Compat())
    assert memory.recall(coming(1))["low"].pool is None
    memory.add(shot(1))
    first = memory.recall(coming(2))
    assert first["high"].pool.memory.times == (0, 2, 5, 7, 9, 11, 14, 16)
    assert elect["low"].asked == []
    memory.add(shot(2))
    second = memory.recall(coming(3))["low"]
    assert second.pool.memory.times == tuple(sorted(second.pool.memory.times))
    assert {s.shot for s in second.pool.sources} == {"01_02"}
    assert len(second.facts["candidates"]) == 16
    positions, start = elect["low"].asked[0]
    assert start == 34
    assert positions[0] == 0 - 34 // 4
    assert torch.equal(
        second.pool.memory.latents_cmhw[0, :, 0, 0], torch.tensor([0, 2, 5, 7, 9, 11, 14, 16]) / 16 - 0.45
    )


def test_memory_stays_flat_and_experts_choose_for_themselves():
    late, early = LikesLate(), lambda m, positions, c: (list(range(8)), {})
    memory = MementoMemory({"high": early, "low": late}, 8, Compat())
    for number in range(1, 30):
        recalled = memory.recall(coming(number))
        memory.add(shot(number))
    assert {s.shot for s in recalled["high"].pool.sources} == {"01_01"}
    assert {s.shot for s in recalled["low"].pool.sources} == {"01_28"}
    state = memory.state()
    assert {name: len(pool) for name, pool in state.pools.items()} == {"high": 8, "low": 8, "last": 8}


def test_one_pool_for_both_experts_on_request():
    memory = MementoMemory({"high": LikesLate(), "low": LikesLate()}, 8, Compat(queries="low"))
    for number in (1, 2, 3):
        recalled = memory.recall(coming(number))
        memory.add(shot(number))
    assert recalled["high"] is recalled["low"]


@pytest.mark.parametrize("kind", ["memento", "storymem"])
def test_a_restored_memory_goes_on_alike(kind):
    def fresh():
        if kind == "memento":
            return MementoMemory({"high": LikesLate(), "low": LikesLate()}, 8, Compat())
        return StoryMemMemory(ThumbnailEmbedder(), StoryMemRules(bank_size=5))

    noise = torch.Generator().manual_seed(0)
    videos = [torch.rand(3, FRAMES, 16, 16, generator=noise) * 2 - 1 for _ in range(4)]
    whole, part = fresh(), fresh()
    for number in range(1, 5):
        left, right = whole.recall(coming(number)), part.recall(coming(number))
        assert (left["low"].pool is None) == (right["low"].pool is None)
        if left["low"].pool is not None:
            assert left["low"].pool.sources == right["low"].pool.sources
            assert torch.equal(left["low"].pool.memory.latents_cmhw, right["low"].pool.memory.latents_cmhw)
        whole.add(shot(number, videos[number - 1]))
        part.add(shot(number, videos[number - 1]))
        state, part = part.state(), fresh()
        part.restore(state)


def test_keyframes_are_new_views_and_never_too_many():
    east, north = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    assert keyframes(torch.stack([east, east, north, north, east]), [True] * 5, StoryMemRules()) == [0, 2, 4]
    assert keyframes(torch.stack([east] * 4), [True] * 4, StoryMemRules()) == [0]
    angles = torch.arange(12) * 0.5  # each step is new at 0.9, so the threshold must fall
    turning = torch.stack([angles.cos(), angles.sin()], dim=1)
    picked = keyframes(turning, [True] * 12, StoryMemRules())
    assert len(picked) <= 3
    assert picked[0] == 0
    good = [False, False, True, True, True]
    assert keyframes(torch.stack([east, north, north, north, east]), good, StoryMemRules()) == [2, 4]
    assert keyframes(torch.stack([east, north]), [False, False], StoryMemRules()) == [0]


def test_storymem_keeps_its_first_and_its_latest():
    noise = torch.Generator().manual_seed(1)
    rules = StoryMemRules(bank_size=5, sink=3)
    memory = StoryMemMemory(ThumbnailEmbedder(), rules)
    for number in range(1, 7):
        memory.add(
            shot(number, (torch.rand(3, 1, 16, 16, generator=noise) * 2 - 1).expand(3, FRAMES, 16, 16))
        )
    pool = memory.recall(coming(7))["low"].pool
    assert [s.shot for s in pool.sources] == ["01_01", "01_02", "01_03", "01_05", "01_06"]
    still = StoryMemMemory(ThumbnailEmbedder(), rules)
    for number in (1, 2):
        still.add(shot(number))  # the same pictures again
    assert {s.shot for s in still.recall(coming(3))["high"].pool.sources} == {"01_01"}


def test_frames_of_bad_quality_are_not_remembered():
    memory = StoryMemMemory(ThumbnailEmbedder(), quality=lambda images: images.mean((1, 2, 3)) * 10)
    memory.add(shot(1))
    assert (
        min(s.frame for s in memory.recall(coming(2))["low"].pool.sources) == 13
    )  # (13 / 16 - 0.5) * 10 > 3


def test_references_come_first():
    references = Pool(
        memory=Memory(latents_cmhw=torch.ones(16, 2, 2, 2), times=(-40, -20)),
        sources=(Source("", 0), Source("", 1)),
    )
    pictures = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(2)) * 2 - 1
    for memory in (
        MementoMemory({"high": LikesLate(), "low": LikesLate()}, 8, Compat()),
        StoryMemMemory(ThumbnailEmbedder()),
    ):
        memory.start(references, pictures)
        assert memory.recall(coming(1))["low"].pool.memory.times == (-40, -20)
        memory.add(shot(1))
        assert memory.recall(coming(2))["low"].pool.sources[0].shot in ("", "01_01")
    with pytest.raises(ValueError, match="no memory"):
        Forgetful().start(references, pictures)
    assert Forgetful().recall(coming(1))["high"].pool is None
