"""The whole way from videos to features, with small encoders."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from benchmark.extraction import decoding
from benchmark.extraction.run import extract, extract_all
from benchmark.features import FeatureTable
from benchmark.functional.similarity import unit
from benchmark.presets import all_readings, preset
from benchmark.sampling import mid
from benchmark.scoring import score
from benchmark.stories import ShotKey
from benchmark.submission import Submission, probed, read_folder
from tests.benchmark import extracting, made

MEMENTO = preset("memento")
PROMPTS = ["[Person A] runs.", "[Person B] sits.", "[Person A] is.", "[Person B] runs.", "[Person A] stops."]
STORIES = {key: made.story(key, prompts=PROMPTS, overview=f"About {key}.") for key in ("one", "two")}


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    return extracting.method(root / "m", STORIES)


@pytest.fixture
def log(tmp_path):
    return tmp_path / "encoded.txt"


def counts(log):
    lines = log.read_text().splitlines() if log.exists() else []
    return Counter(line.split()[0] for line in lines if not line.endswith("batch")), lines


def repeated(lines):
    """Pictures, clips and texts that were encoded more than once."""
    seen = Counter(line for line in lines if not line.endswith("batch"))
    return [line for line, count in seen.items() if count > 1]


def run(submission, folder, stories=STORIES, chosen=MEMENTO, **of):
    return extract(submission, stories, chosen, extracting.encoders(**of), folder)


def decoded(path):
    import av

    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def by_hand(submission, stories):
    """Every kind of every unit, straight from the definitions."""
    small, arrays = extracting.encoders(), {}
    frame_encoders = {encoder.kind: encoder for encoder in small.frames}

    def encoded(encoder, pictures):
        each = [encoder.encode(np.stack([picture] * encoder.batch))[:1] for picture in pictures]
        return np.concatenate(each)

    def clips(pictures, count):
        return encoded(
            small.clips,
            small.clips.pixels.pictures(pictures[mid(count, len(pictures))]).reshape(-1, 8, 6, 6, 3),
        )

    for story in stories.values():
        pictures = {key: decoded(clip.path) for key, clip in submission.clips[story.key].items()}
        units = {tuple(shot.key): [shot.key] for shot in story.shots}
        units |= {(scene.number,): [shot.key for shot in scene.shots] for scene in story.scenes}
        units[()] = [shot.key for shot in story.shots]
        for place, shots in units.items():
            joined = np.concatenate([pictures[shot] for shot in shots])
            arrays[story.key, place, "viclip_24"] = clips(joined, 24)
            arrays[story.key, place, "viclip_8"] = clips(joined, 8)
        for shot in story.shots:
            for kind, encoder in frame_encoders.items():
                rows = encoded(encoder, encoder.pixels.pictures(pictures[shot.key]))
                arrays[story.key, tuple(shot.key), kind] = rows
            raw = unit(arrays[story.key, tuple(shot.key), "clip_l14"])
            from benchmark.encoders.aesthetic import scores

            arrays |= {(story.key, tuple(shot.key), kind): a for kind, a in scores(raw).items()}
            arrays[story.key, tuple(shot.key), "text"] = small.clips.encode_texts([shot.prompt])[0]
        for scene in story.scenes:
            text = " ".join(shot.prompt for shot in scene.shots)
            arrays[story.key, (scene.number,), "text"] = small.clips.encode_texts([text])[0]
        arrays[story.key, (), "text"] = small.clips.encode_texts([story.overview])[0]
    rates = {(s, tuple(k)): c.facts.fps for s, shots in submission.clips.items() for k, c in shots.items()}
    return FeatureTable(arrays, rates=rates)


def test_scores_are_those_of_features_made_by_hand(videos, tmp_path):
    store, _, faults = run(videos, tmp_path)
    assert faults == ()
    metrics = [m for m in all_readings(MEMENTO) if not any(k.startswith("stat_") for k in m.needs)]
    ours = score(metrics, STORIES, store, recipe="r")
    hand = score(metrics, STORIES, by_hand(videos, STORIES), recipe="r")
    assert ours.unavailable == hand.unavailable == {}
    for name in hand.metrics:
        assert ours.metrics[name].coverage() == hand.metrics[name].coverage(), name
        assert ours.metrics[name].value() == pytest.approx(hand.metrics[name].value(), abs=1e-7), name
    assert len(metrics) == 20


def test_every_video_is_decoded_once_and_every_picture_encoded_once(videos, tmp_path, log, monkeypatch):
    passes = []
    decode = decoding.decode_file
    monkeypatch.setattr(
        decoding, "decode_file", lambda work, recipes: (passes.append(work.path), decode(work, recipes))[1]
    )
    store, work, _ = run(videos, tmp_path / "f", log=log)
    assert len(passes) == len(set(passes)) == work.videos == work.decode_passes == 10
    made_now, lines = counts(log)
    assert not repeated(lines)
    assert made_now["clip_l14"] == work.encoded["clip_l14"] == 170
    assert made_now["viclip"] == work.encoded["viclip"]
    assert made_now["text"] == work.encoded["text"] == len(set(PROMPTS)) + 2 + 2
    assert work.seconds["decode"] > 0 < work.seconds["encode"]
    again, second, _ = run(videos, tmp_path / "f", log=log)
    assert second.decode_passes == sum(second.encoded.values()) == 0
    assert second.reused == work.encoded
    assert counts(log)[1] == lines
    assert extracting.same(store, again, STORIES)


def test_another_stride_encodes_only_what_is_new(videos, tmp_path, log):
    sparse, first, _ = run(videos, tmp_path, chosen=preset("memento", aesthetic_stride=4), log=log)
    assert first.encoded["clip_l14"] == 10 * 5
    assert sparse.get("one", (1, 1), "aes_mlp_raw").shape == (5,)
    dense, second, _ = run(videos, tmp_path, log=log)
    assert second.encoded == {"clip_l14": 10 * 12}
    assert second.reused["clip_l14"] == 50
    assert second.decode_passes == 10
    assert not repeated(counts(log)[1])
    direct, _, _ = run(videos, tmp_path / "other")
    assert extracting.same(dense, direct, STORIES)
    # a plan sees its own frames only
    once_more, _, _ = run(videos, tmp_path, chosen=preset("memento", aesthetic_stride=4))
    assert extracting.same(once_more, sparse, STORIES)
    assert once_more.get("one", (1, 1), "clip_l14").shape[0] == 5


def test_another_encoder_or_head_costs_what_it_must(videos, tmp_path, log):
    run(videos, tmp_path, log=log)
    before = counts(log)[0]
    other = extracting.encoders(log=log)
    other.frames[1].identity = "2"
    _, work, _ = extract(videos, STORIES, MEMENTO, other, tmp_path)
    assert set(work.encoded) == {"dino_b14"}
    linear = preset("memento", aesthetic="storymem_aesthetic_videos")
    store, work, _ = run(videos, tmp_path, chosen=linear, log=log)
    assert work.encoded == {}
    assert "aes_linear_raw" in store.kinds()
    assert counts(log)[0]["clip_l14"] == before["clip_l14"]


def test_missing_encoders_leave_their_kinds_out(videos, tmp_path):
    some = extracting.encoders()
    some.frames, some.clips = some.frames[:1], None
    store, _, faults = extract(videos, STORIES, MEMENTO, some, tmp_path)
    assert faults == ()
    assert {k for k in store.kinds() if not k.startswith("stat_")} == {"clip_b32"}
    scores = score(all_readings(MEMENTO), STORIES, store, recipe="r")
    assert scores.unavailable["aesthetic"] == "needs aes_mlp_raw"
    assert np.isfinite(scores.metrics["background"].value())
    assert np.isfinite(scores.metrics["flicker"].value())


def test_two_methods_share_what_is_the_same(videos, tmp_path, log):
    twin = Submission(method="twin", clips={"one": videos.clips["one"]}, missing=())
    a, b = extract_all([videos, twin], STORIES, MEMENTO, extracting.encoders(log=log), tmp_path)
    assert a.work.decode_passes == 10
    assert b.work.decode_passes == sum(b.work.encoded.values()) == 0
    assert b.work.videos == 5
    assert b.work.reused["clip_l14"] == 85
    one = {"one": STORIES["one"]}
    assert extracting.same(a.store, b.store, one)
    assert ("two", ShotKey(1, 1)) in b.submission.missing


def test_shots_in_one_file(tmp_path, log):
    stories = {"one": made.story("one", (2, 1))}
    shots = [made.moving(9, seed=i) for i in range(3)]
    made.video(tmp_path / "h/film.mp4", [picture for shot in shots for picture in shot])
    from benchmark.ranges import FORMAT, read_ranges

    def ranged(*ranges):
        videos = [{"path": "film.mp4", "story": "one", "shots": ranges}]
        (tmp_path / "h/m.json").write_text(json.dumps({"format": FORMAT, "method": "h", "videos": videos}))
        return probed(read_ranges(tmp_path / "h/m.json", stories), stories)

    whole, work, faults = run(ranged([0, 9], [9, 18], [18, 27]), tmp_path / "f", stories, log=log)
    assert faults == ()
    assert (work.videos, work.decode_passes) == (1, 1)
    assert whole.num_frames("one", ShotKey(1, 2)) == 9
    assert whole.get("one", (1, 2), "clip_l14").shape == (9, 768)
    assert whole.get("one", (1, 2), "stat_inner_cuts").size == 0
    before = counts(log)[0]["clip_l14"]
    # Other ranges of the same file: its frames are known.
    moved, work, _ = run(ranged([0, 10], [10, 18], [18, 27]), tmp_path / "f", stories, log=log)
    assert counts(log)[0]["clip_l14"] == before
    assert np.array_equal(moved.get("one", (1, 1), "clip_l14")[9], whole.get("one", (1, 2), "clip_l14")[0])
    assert moved.get("one", (1, 1), "stat_inner_cuts").tolist() == [9]
    single, _, faults = run(ranged([0, 1], [1, 18], [18, 27]), tmp_path / "f", stories)
    assert faults == ()
    assert single.get("one", (1, 1), "viclip_24").shape == (3, 8)
    assert single.get("one", (1, 1), "stat_motion") is None
    scores = score(all_readings(MEMENTO), stories, single, recipe="r")
    assert scores.metrics["subject_intra_shot_true_shot"].coverage().groups == (2, 3)


@pytest.mark.parametrize(
    ("place", "line"), [(0.3, "1 of 25 frames are damaged"), (0.7, "Invalid data found")]
)
def test_bad_and_odd_videos_are_a_line_each(tmp_path, place, line):
    sizes = {(1, 1): (90, 160), (1, 2): (60, 98), (1, 3): (150, 90), (2, 1): (90, 160), (2, 2): (90, 160)}
    lengths = {(1, 2): 2, (2, 1): 25}
    stories = {"one": STORIES["one"]}

    def shot(_, key):
        return made.moving(lengths.get(key, 9), seed=key.shot, size=sizes[key]) if key != (2, 2) else None

    submission = extracting.method(tmp_path / "m", stories, shot)
    path = submission.clips["one"][ShotKey(2, 1)].path
    data = path.read_bytes()
    at = round(len(data) * place)
    path.write_bytes(data[:at] + bytes(byte ^ 255 for byte in data[at : at + 400]) + data[at + 400 :])
    submission = probed(read_folder(tmp_path / "m", stories), stories)
    store, _, faults = run(submission, tmp_path / "f", stories)
    assert len(faults) == 1
    assert faults[0].startswith("one 02_01: ")
    assert line in faults[0]
    assert "\n" not in faults[0]
    assert store.num_frames("one", ShotKey(1, 2)) == 2
    assert store.get("one", (1, 2), "viclip_24").shape == (3, 8)
    scores = score(all_readings(MEMENTO), stories, store, recipe="r")
    assert scores.metrics["semantic_shot"].coverage().units == 3
    assert scores.metrics["semantic_story"].coverage().groups == (1, 2)
    again, second, same_faults = run(submission, tmp_path / "f", stories)
    assert same_faults == faults
    assert second.decode_passes == 0  # what is broken is remembered, too
    assert sum(second.encoded.values()) == 0
    assert extracting.same(store, again, stories)


def test_a_file_that_is_away_for_a_while_is_read_again(tmp_path):
    stories = {"one": made.story("one", (1,))}
    submission = extracting.method(tmp_path / "m", stories)
    path = submission.clips["one"][ShotKey(1, 1)].path
    path.rename(tmp_path / "away.mp4")
    store, _, faults = run(submission, tmp_path / "f", stories)
    assert len(faults) == 1
    assert faults[0].startswith("one 01_01: ")
    assert "no such file" in faults[0]
    assert store.num_frames("one", ShotKey(1, 1)) == 0
    (tmp_path / "away.mp4").rename(path)
    store, _, faults = run(submission, tmp_path / "f", stories)
    assert faults == ()
    assert store.get("one", (1, 1), "clip_l14").shape == (17, 768)


def test_a_file_that_is_shorter_than_it_says(videos, tmp_path, monkeypatch):
    from dataclasses import replace

    clips = dict(videos.clips["one"])
    short = clips[ShotKey(1, 2)]
    clips[ShotKey(1, 2)] = replace(short, facts=replace(short.facts, frames=30))
    claims = replace(videos, clips={"one": clips})
    stories = {"one": STORIES["one"]}
    store, work, faults = run(claims, tmp_path / "f", stories)
    assert faults == ("one 01_02: says 30 frames, has 17: only those are used",)
    right, _, _ = run(replace(videos, clips={"one": videos.clips["one"]}), tmp_path / "g", stories)
    assert extracting.same(store, right, stories)
    again, work, same_faults = run(claims, tmp_path / "f", stories)
    assert (work.decode_passes, same_faults) == (0, faults)
    assert extracting.same(again, right, stories)


def test_features_that_are_not_finite_are_left_out_and_said(tmp_path, log):
    stories = {"one": STORIES["one"]}

    def shot(_, key):
        pictures = made.moving(9, seed=key.shot + 10 * key.scene)
        return [np.zeros_like(p) if key == (1, 2) and i == 4 else p for i, p in enumerate(pictures)]

    submission = extracting.method(tmp_path / "m", stories, shot)
    few = extracting.encoders(log=log)
    few.frames[0].bad_value = 20
    store, _, faults = extract(submission, stories, MEMENTO, few, tmp_path / "f")
    assert faults == ("story one, shot 01_02: 1 of 9 clip_b32 features are not finite: left out",)
    assert store.rows("one", ShotKey(1, 2), "clip_b32", np.asarray([4])) is None
    assert store.rows("one", ShotKey(1, 2), "clip_b32", np.asarray([3, 5])).shape == (2, 8)
    scores = score(all_readings(MEMENTO), stories, store, recipe="r")
    assert scores.metrics["background_interval_1"].coverage().groups == (1, 2)
    assert np.isfinite(scores.metrics["aesthetic"].value())


def test_a_damaged_feature_file_is_encoded_again_with_a_line(videos, tmp_path, log):
    store, _, _ = run(videos, tmp_path, log=log)
    victim = next(tmp_path.glob("dino_b14-*/*.npy"))
    held = victim.read_bytes()
    victim.write_bytes(held[: len(held) // 2])
    again, work, faults = run(videos, tmp_path, log=log)
    assert len(faults) == 1
    assert str(victim) in faults[0]
    assert set(work.encoded) == {"dino_b14"}
    assert work.decode_passes == 1
    assert victim.read_bytes() == held
    assert extracting.same(store, again, STORIES)


def test_a_story_without_videos(videos, tmp_path):
    nothing = Submission(method="none", clips={})
    store, work, faults = run(nothing, tmp_path)
    assert (work.videos, faults) == (0, ())
    scores = score(all_readings(MEMENTO), STORIES, store, recipe="r")
    assert scores.unavailable["aesthetic"]
    assert np.isnan(scores.metrics["aesthetic"].value())
