"""Layout, mask, condition and times of a shot, against the reference's training step and by hand."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from safetensors.torch import load_file

from memento_model.codecs.codec import GreyLatents
from memento_model.codecs.dct import DctCodec
from memento_model.conditioning import (
    Given,
    Memory,
    condition_shot,
    given_frames,
    memory_positions,
    query_positions,
    reference_memory,
    spaced_frames,
    stack,
)
from memento_model.config import Compat, FrameGrid, Layout
from memento_model.flow import mix
from tests.support import GOLDEN

GRID = FrameGrid(num_frames=9, height=32, width=48)


@pytest.fixture
def codec():
    return DctCodec()


def video(frames, seed=0):
    return torch.rand(3, frames, 32, 48, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_the_training_step_of_the_reference_is_rebuilt():
    folder = GOLDEN / "model" / "hd32x2"
    facts = json.loads((folder / "config.json").read_text())["train_step"]
    step = load_file(folder / "train_step.safetensors")
    picked = step["picked"]
    memory = Memory(
        latents_cmhw=step["candidates"][:, picked],
        times=tuple(4 * facts["candidate_positions"][i] for i in picked),
    )
    grey = GreyLatents(step["target_condition"], step["identity_condition"])
    training = Compat(clamp_memory_before_target=False)
    made = condition_shot(grey, memory=memory, num_identities=1, compat=training)
    assert torch.equal(made.condition_bcfhw[0], step["cond"])
    expected = [max(p, -512) for p in facts["temporal_positions"]]
    assert made.positions_bf[0].tolist() == expected
    clean = made.clean(step["identity_latent"][None], step["target_latent"][None])
    noisy = mix(clean, step["noise"][None], facts["sigma"])
    torch.testing.assert_close(noisy[0], step["noisy"], atol=1e-6, rtol=0)
    assert made.model_input(noisy).shape[1] == 36


def test_mask_and_condition_of_every_task(codec):
    grey = codec.grey(GRID)
    memory = Memory(latents_cmhw=codec.encode(video(9)[None])[0], times=(0, 4, 8))
    first = given_frames(codec, video(1, seed=1), GRID)
    motion = given_frames(codec, video(5, seed=2), GRID)
    for given, num_memory, identities, ones in (
        (None, 0, 0, []),
        (None, 3, 0, [0, 1, 2]),
        (first, 3, 1, [1, 2, 3, 4]),
        (motion, 3, 2, [2, 3, 4, 5, 6]),
        (first, 0, 0, [0]),
    ):
        made = condition_shot(
            grey, memory=memory if num_memory else None, given=given, num_identities=identities, start_frame=9
        )
        mask, clean = made.condition_bcfhw[0].split([4, 16])
        wanted = torch.zeros(identities + num_memory + 3)
        wanted[ones] = 1
        assert torch.equal(mask, wanted[None, :, None, None].expand_as(mask))
        assert torch.equal(clean[:, made.layout.memory], memory.latents_cmhw[:, :num_memory])
        assert torch.equal(
            clean[:, made.layout.target],
            (given or Given(latents_cfhw=grey.video_cfhw, num_latent_frames=0)).latents_cfhw,
        )
        assert torch.equal(clean[:, made.layout.identity], grey.frame_cfhw.expand(-1, identities, -1, -1))
        assert made.layout == Layout(identity_frames=identities, memory_frames=num_memory, target_frames=3)


def test_given_frames_come_back_from_the_condition(codec):
    frames = video(5, seed=3)
    given = given_frames(codec, frames, GRID)
    assert given.num_latent_frames == 2
    alone = codec.encode(frames[None])[0]
    assert torch.equal(given.latents_cfhw[:, :2], alone)


def test_true_times_are_floored_clamped_and_lowered():
    assert query_positions([0, 3, 4, 80, 81, -20], 81) == [-20, -20, -19, 0, 0, -25]
    assert memory_positions([0, 3, 4, 80, 81, -20], 81, Compat()) == [-20, -20, -19, -1, -1, -25]
    assert memory_positions([0, 80], 81, Compat(clamp_memory_before_target=False)) == [-20, 0]
    assert memory_positions([0, 4000], 6000, Compat()) == [-512, -500]
    assert memory_positions([7, 9, 1], 81, Compat(memory_positions="storymem")) == [-15, -10, -5]


def test_memory_is_put_back_with_the_first_noise(codec):
    memory = Memory(latents_cmhw=codec.encode(video(9)[None])[0], times=(0, 4, 8))
    made = condition_shot(codec.grey(GRID), memory=memory, num_identities=1, start_frame=9)
    noise = torch.randn(1, 16, 7, 4, 6, generator=torch.Generator().manual_seed(0))
    state = torch.full_like(noise, 7.0)
    put = made.reimpose(state, noise, 250.0)
    assert torch.allclose(put[:, :, 1:4], 0.75 * memory.latents_cmhw + 0.25 * noise[:, :, 1:4])
    assert (put[:, :, [0, 4, 5, 6]] == 7).all()
    assert (state == 7).all()


def test_reference_images_stand_before_the_story(codec):
    made = reference_memory(codec, video(3).transpose(0, 1))
    assert made.times == (-60, -40, -20)
    assert torch.equal(made.latents_cmhw[:, :1], codec.encode(video(3)[None, :, :1])[0])
    assert condition_shot(codec.grey(GRID), memory=made).positions_bf.tolist() == [[-15, -10, -5, 0, 1, 2]]


def test_samples_of_one_layout_make_a_batch(codec):
    grey, memory = codec.grey(GRID), Memory(latents_cmhw=codec.encode(video(9)[None])[0], times=(0, 4, 8))
    one = condition_shot(grey, memory=memory, start_frame=9)
    two = condition_shot(grey, memory=memory, start_frame=90, given=given_frames(codec, video(1), GRID))
    both = stack([one, two])
    assert torch.equal(both.condition_bcfhw[1:], two.condition_bcfhw)
    assert torch.equal(both.positions_bf[:1], one.positions_bf)
    with pytest.raises(ValueError, match="equal numbers"):
        stack([one, condition_shot(grey)])


def test_what_does_not_fit_is_refused(codec):
    grey = codec.grey(GRID)
    with pytest.raises(ValueError, match="a prompt alone"):
        condition_shot(grey, num_identities=1, has_condition=False)
    assert condition_shot(grey, has_condition=False).condition_bcfhw is None
    with pytest.raises(ValueError, match="4 given frames"):
        given_frames(codec, video(4), GRID)
    with pytest.raises(ValueError, match="32x40, the shot is 32x48"):
        given_frames(codec, torch.zeros(3, 1, 32, 40), GRID)
    with pytest.raises(ValueError, match="memory: latents"):
        condition_shot(grey, memory=Memory(latents_cmhw=torch.zeros(16, 1, 5, 5), times=(0,)))
    with pytest.raises(ValueError, match="2 times for memory"):
        Memory(latents_cmhw=torch.zeros(16, 1, 4, 6), times=(0, 1))


def test_evenly_spaced_frames_of_trainer_and_sampler():
    assert spaced_frames(81, 8, Compat()) == [0, 11, 23, 34, 46, 57, 69, 80]
    assert spaced_frames(81, 8, Compat(frame_sampling="floor")) == [0, 11, 22, 34, 45, 57, 68, 80]
    assert spaced_frames(17, 1, Compat()) == [0]
