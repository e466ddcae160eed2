"""The cache holds what encoding would give, is filled once, survives kills, and names what is wrong."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import av
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from memento_model.codecs.dct import DctCodec
from memento_model.codecs.hashed import HashedText
from memento_model.conditioning import given_frames
from memento_model.config import FrameGrid
from memento_model.errors import DataError
from memento_model.training import cache_fill
from memento_model.training.cache_encoders import Encoders
from memento_model.training.cache_fill import FillOptions
from memento_model.training.cache_plan import last_frames, plan_cache
from memento_model.training.clip_frames import cover, to_model_range
from memento_model.training.inputs import fill_cache, open_cache, read_inputs
from memento_model.training.objective import prepare
from memento_model.training.samples import Frame, draw, samples_of
from tests.memento_model.films import config, write_clip, write_dataset
from tests.memento_model.tiny import GRID


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("set"))


@pytest.fixture(scope="module")
def filled(dataset, tmp_path_factory):
    """(settings, inputs, what was done) of a full cache; not to be changed."""
    run = config(dataset, tmp_path_factory.mktemp("cache"))
    inputs, done = fill_cache(run, read_inputs(run))
    return run, inputs, done


def video(path):
    with av.open(path) as container:
        frames = [torch.from_numpy(f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]
    return to_model_range(torch.stack(frames)).permute(3, 0, 1, 2)


def contents(folder):
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*.safetensors"))
    }


def test_it_holds_what_encoding_would_give(filled):
    run, inputs, _ = filled
    latents, codec, text = open_cache(run, inputs), DctCodec(), HashedText(32, 24)
    sequence = inputs.train[0]
    for i in (1, 2):
        pixels = video(sequence.clips[i].path)
        assert torch.equal(latents.shot(sequence, i), codec.encode(pixels[None, :, : GRID.num_frames])[0])
        given = given_frames(codec, pixels[:, :1], GRID)
        assert torch.equal(latents.given_first(sequence, i).latents_cfhw, given.latents_cfhw)
        assert latents.given_first(sequence, i).num_latent_frames == 1
    wanted = {Frame(0, f) for f in sequence.clips[0].candidates}
    wanted |= {Frame(i, f) for i in (0, 1) for f in last_frames(run)}
    wanted |= {Frame(t.clip, t.frame) for t in sequence.targets}
    for frame in wanted:
        image = video(sequence.clips[frame.clip].path)[:, frame.frame]
        assert torch.equal(latents.frame(sequence, frame), codec.encode_images(image[None])[0])
    grey = codec.grey(GRID)
    assert torch.equal(latents.grey().video_cfhw, grey.video_cfhw)
    assert torch.equal(latents.grey().frame_cfhw, grey.frame_cfhw)
    clip = sequence.clips[1]
    for prompt in ("", clip.caption, clip.global_caption, sequence.targets[0].caption):
        assert torch.equal(latents.text(prompt), text.encode([prompt])[0])


def test_bf16_is_the_rounded_value_as_fp32(filled, dataset, tmp_path):
    exact_run, inputs, done = filled
    run = config(dataset, tmp_path, cache_dtype="bf16")
    _, half = fill_cache(run, inputs)
    exact, rounded = open_cache(exact_run, inputs), open_cache(run, inputs)
    shot = rounded.shot(inputs.train[0], 1)
    assert shot.dtype == torch.float32
    assert torch.equal(shot, exact.shot(inputs.train[0], 1).bfloat16().float())
    assert half.num_bytes < 0.7 * done.num_bytes


def test_every_draw_of_a_run_finds_its_latents(filled):
    run, inputs, _ = filled
    latents = open_cache(run, inputs)
    objective = replace(run.objective, num_identities=2)
    for number in range(60):
        sample = samples_of(inputs.train)[number % 4]
        made = draw(sample, objective, seed=0, epoch=0, number=number, last_frames=last_frames(run))
        ready = prepare(sample, made, latents, "low", run.compat)
        assert ready.candidates_cfhw.shape[1] == len(made.candidates)


def test_reading_is_the_same_with_little_memory_and_cannot_be_spoilt(filled):
    run, inputs, _ = filled
    sequence, roomy = inputs.train[0], open_cache(run, inputs)
    first = roomy.shot(sequence, 1)
    expected = first.clone()
    first.zero_()
    assert torch.equal(roomy.shot(sequence, 1), expected)
    from memento_model.training.latent_cache import CachedLatents

    tight = CachedLatents(roomy.folder, plan_cache(inputs.sequences, run), roomy.key, recent_bytes=0)
    assert torch.equal(tight.shot(sequence, 1), expected)
    assert torch.equal(tight.shot(sequence, 1), expected)


def test_short_clips_are_remembered_but_not_trained_on(dataset, tmp_path):
    run = replace(
        config(dataset, tmp_path, on_bad_sample="skip"), grid=FrameGrid(num_frames=21, height=32, width=48)
    )
    inputs, _ = fill_cache(run, read_inputs(run))
    assert (inputs.skipped, len(inputs.faults)) == (2, 2)
    latents, samples = open_cache(run, inputs), samples_of(inputs.train)
    assert [s.target for s in samples] == [1, 1]
    made = draw(samples[0], run.objective, seed=0, epoch=0, number=0, last_frames=last_frames(run))
    assert {f.frame for f in made.last} <= set(range(13))
    assert prepare(samples[0], made, latents, "low", run.compat).candidates_cfhw.shape[1] == 8


class Counting(Encoders):
    """Counts what is encoded; the last video fails with KeyboardInterrupt if `stop_at` is reached."""

    calls = 0
    stop_at = None

    def codec(self, device):
        outer = type(self)

        class Codec(DctCodec):
            def encode(self, video_bcthw):
                outer.calls += 1
                if outer.stop_at is not None and outer.calls > outer.stop_at:
                    raise KeyboardInterrupt
                return super().encode(video_bcthw)

        return Codec(device)


@pytest.fixture
def counting(monkeypatch):
    made = type("Counted", (Counting,), {"calls": 0, "stop_at": None})
    monkeypatch.setattr("memento_model.training.inputs.Encoders", made)
    return made


def test_nothing_is_encoded_twice_and_each_video_is_decoded_once(
    filled, dataset, tmp_path, counting, monkeypatch
):
    run, reads = config(dataset, tmp_path), []
    monkeypatch.setattr(
        cache_fill, "read_frames", lambda *a, read=cache_fill.read_frames: reads.append(a[0]) or read(*a)
    )
    told = []
    inputs, done = fill_cache(run, read_inputs(run), progress=lambda *it: told.append(it))
    assert [it for it in told if it[0] == "video"] == [("video", n, 6) for n in range(1, 7)]
    assert sorted(reads) == sorted({c.path for s in inputs.train for c in s.clips})
    assert (done.made_clips, done.reused_clips, done.reused_prompts) == (6, 0, 0)
    calls = counting.calls
    assert contents(tmp_path) == contents(open_cache(filled[0], filled[1]).folder)
    _, again = fill_cache(run, inputs)
    assert (counting.calls, len(reads)) == (calls, 6)
    assert (again.made_clips, again.made_prompts, again.reused_clips) == (0, 0, 6)
    assert again.reused_prompts == done.made_prompts
    assert again.num_bytes == done.num_bytes


def test_more_frames_are_added_to_what_is_there(dataset, tmp_path, counting):
    few = config(dataset, tmp_path, max_candidates_per_clip=2)
    fill_cache(few, read_inputs(few))
    before = counting.calls
    more = config(dataset, tmp_path)
    inputs, done = fill_cache(more, read_inputs(more))
    # Only first clips have candidates; some of theirs are last frames too and already there.
    assert done.made_clips == 2
    assert 0 < counting.calls - before <= 6
    fresh = config(dataset, tmp_path / "fresh")
    fill_cache(fresh, inputs)
    theirs, ours = open_cache(fresh, inputs), open_cache(more, inputs)
    for number in inputs.train[0].clips[0].candidates:
        frame = Frame(0, number)
        assert torch.equal(theirs.frame(inputs.train[0], frame), ours.frame(inputs.train[0], frame))


def test_stopped_in_the_middle_it_goes_on_to_the_same_bytes(filled, dataset, tmp_path, counting):
    run = config(dataset, tmp_path)
    inputs = read_inputs(run)
    counting.stop_at = 20
    with pytest.raises(KeyboardInterrupt):
        fill_cache(run, inputs)
    before = contents(tmp_path)
    assert before
    counting.stop_at = None
    _, done = fill_cache(run, inputs)
    assert 0 < done.made_clips < 6
    whole = contents(tmp_path)
    assert before.items() < whole.items()
    assert whole == contents(open_cache(filled[0], filled[1]).folder)


SLOW_FILL = """
import sys, time
from memento_model.training import cache_fill
from memento_model.training.inputs import fill_cache, read_inputs
from tests.memento_model.films import config
write = cache_fill.files.write_shard
cache_fill.files.write_shard = lambda *a: (time.sleep(0.3), write(*a))[1]
run = config(sys.argv[1], sys.argv[2])
fill_cache(run, read_inputs(run))
"""


@pytest.mark.slow
def test_killed_it_leaves_whole_files_only(filled, dataset, tmp_path):
    process = subprocess.Popen([sys.executable, "-c", SLOW_FILL, str(dataset), str(tmp_path)])
    deadline = time.monotonic() + 120
    while len(contents(tmp_path)) < 3 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    left = contents(tmp_path)
    assert 3 <= len(left) < 8
    run = config(dataset, tmp_path)
    fill_cache(run, read_inputs(run))
    whole = contents(tmp_path)
    assert left.items() < whole.items()
    assert whole == contents(open_cache(filled[0], filled[1]).folder)


def test_a_changed_codec_gets_latents_of_its_own(filled, dataset, tmp_path, monkeypatch):
    run, inputs = config(dataset, tmp_path), filled[1]
    fill_cache(run, inputs)
    before = contents(tmp_path)
    monkeypatch.setattr(DctCodec, "revision", "2")
    with pytest.raises(
        DataError, match=r"not encoded(.|\n)*it also holds dct-1-9x32x48-fp32(.|\n)*memento cache"
    ):
        open_cache(run, inputs)
    _, done = fill_cache(run, inputs)
    assert (done.made_clips, done.reused_clips, done.made_prompts) == (6, 0, 0)
    assert before.items() < contents(tmp_path).items()
    assert open_cache(run, inputs).key.codec == "dct-2"


def damage(path, how):
    raw = bytearray(path.read_bytes())
    if how == "cut":
        raw = raw[:-10]
    elif how == "bit":
        raw[-5] ^= 1
    elif how == "other":
        raw = b"nothing of ours"
    path.write_bytes(bytes(raw))


@pytest.mark.parametrize("kind", ["latents", "text"])
@pytest.mark.parametrize("how", ["cut", "other"])
def test_a_damaged_file_is_named_and_made_again(filled, dataset, tmp_path, kind, how):
    run, inputs = config(dataset, tmp_path), filled[1]
    fill_cache(run, inputs)
    good = contents(tmp_path)
    path = next(p for p in sorted((tmp_path / kind).rglob("*.safetensors")) if p.stem != "grey")
    damage(path, how)
    with pytest.raises(DataError, match=path.name):
        open_cache(run, inputs)
    _, done = fill_cache(run, inputs)
    assert path.name in done.mended[0]
    assert contents(tmp_path) == good


def test_a_flipped_bit_is_found_when_read_and_by_verify(filled, dataset, tmp_path):
    run, inputs = config(dataset, tmp_path), filled[1]
    fill_cache(run, inputs)
    good, paths = contents(tmp_path), sorted(tmp_path.rglob("*.safetensors"))
    for path in paths:
        damage(path, "bit")
    latents, sequence = open_cache(run, inputs), inputs.train[0]

    def read_all():
        for i in (1, 2):
            latents.shot(sequence, i)
            latents.given_first(sequence, i)
        for number in sequence.clips[0].candidates:
            latents.frame(sequence, Frame(0, number))

    with pytest.raises(DataError, match=r"not what was written; run `memento cache --verify`"):
        read_all()
    _, done = fill_cache(run, inputs, FillOptions(verify=True))
    assert len(done.mended) == len(paths)
    assert contents(tmp_path) == good


def test_a_foreign_file_is_named(filled, dataset, tmp_path):
    run, inputs = config(dataset, tmp_path), filled[1]
    fill_cache(run, inputs)
    one, two = [p for p in sorted((tmp_path / "latents").rglob("*.safetensors")) if p.stem != "grey"][:2]
    one.write_bytes(two.read_bytes())
    with pytest.raises(DataError, match=f"foreign: of {two.stem[:12]}"):
        open_cache(run, inputs)


def test_what_was_never_encoded_is_named(filled):
    run, inputs, _ = filled
    latents, sequence = open_cache(run, inputs), inputs.train[0]
    with pytest.raises(DataError, match="f0-q0-00: shot is not encoded"):
        latents.shot(sequence, 0)
    with pytest.raises(DataError, match="'never seen' is not encoded"):
        latents.text("never seen")
    first = replace(sequence.clips[0], candidates=(0, 11))
    changed = replace(inputs, train=(replace(sequence, clips=(first, *sequence.clips[1:])),))
    with pytest.raises(DataError, match=r"f0-q0-00: .* lacks 1 of \d+ latents \(frame\.11"):
        open_cache(run, changed)


def test_damage_inside_a_video_stops_the_run_or_is_skipped(dataset, tmp_path):
    import shutil

    copy = shutil.copytree(dataset, tmp_path / "set")
    torn = copy / "clips/f1-q0/01.mp4"
    raw = bytearray(torn.read_bytes())
    at = raw.index(b"mdat") + 4
    raw[at : at + (len(raw) - at) // 2] = bytes((len(raw) - at) // 2)
    torn.write_bytes(bytes(raw))
    run = config(copy, tmp_path / "cache")
    with pytest.raises(DataError) as stopped:
        fill_cache(run, read_inputs(run))
    assert stopped.value.faults[0].startswith("f1-q0-01: ")
    skipping = config(copy, tmp_path / "cache", on_bad_sample="skip")
    inputs, done = fill_cache(skipping, read_inputs(skipping))
    assert [s.sequence_id for s in inputs.train] == ["f0-q0"]
    assert (inputs.skipped, len(inputs.faults), done.made_clips) == (2, 1, 0)
    open_cache(skipping, inputs)


def test_a_replaced_video_is_encoded_anew(dataset, tmp_path):
    import shutil

    copy = shutil.copytree(dataset, tmp_path / "set")
    run = config(copy, tmp_path / "cache")
    fill_cache(run, read_inputs(run))
    write_clip(copy / "clips/f0-q0/01.mp4", 99, 21)
    inputs, done = fill_cache(run, read_inputs(run))
    assert done.made_clips == 1
    expected = DctCodec().encode(video(str(copy / "clips/f0-q0/01.mp4"))[None, :, : GRID.num_frames])[0]
    assert torch.equal(open_cache(run, inputs).shot(inputs.train[0], 1), expected)


def test_other_sizes_are_scaled_to_cover_and_cut_in_the_middle():
    grid = FrameGrid(num_frames=1, height=32, width=48)
    ramp = torch.arange(200, dtype=torch.uint8)[None, :, None].expand(64, 200, 3)
    made = cover(ramp, grid)
    assert made.shape == (3, 32, 48)
    middle = made[0, 16].float()
    assert abs(middle.mean() - 99.5) < 0.6  # the middle of the ramp
    assert torch.allclose(middle.diff(), torch.full((47,), 2.0), atol=1.01)  # every second column
    exact = torch.randint(0, 256, (32, 48, 3), dtype=torch.uint8)
    assert torch.equal(cover(exact, grid), exact.permute(2, 0, 1))


@pytest.mark.slow
def test_ray_makes_the_same_bytes(filled, dataset, tmp_path, ray_cluster):
    run = config(dataset, tmp_path)
    _, done = fill_cache(run, filled[1], FillOptions(on_ray=True))
    assert done.made_clips == 6
    assert contents(tmp_path) == contents(open_cache(filled[0], filled[1]).folder)
    _, again = fill_cache(run, filled[1], FillOptions(on_ray=True))
    assert again.made_clips == 0
