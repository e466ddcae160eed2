"""What Memento's trainer expects of a data set without ever saying so, checked on a published set.

The numbers in the names of the tests are those of the list that the module `memento_loader` begins with.
"""

from __future__ import annotations

import hashlib
import itertools
import shutil
from fractions import Fraction
from pathlib import Path

import av
import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curation import ids, rows
from curation.captions.grammar import labels, parse_inventory
from curation.captions.lint import LintSettings, lint_caption
from curation.engine.store import Scratch, Store
from curation.publishing.publish import publish
from curation.stages.captions import Captions
from curation.stages.export import Export
from tests.curation import memento_loader as trainer
from tests.curation import rows_factory
from tests.curation.tiny_film import sequence_row, texture, write_film

FPS, HEIGHT, WIDTH = 24, 244, 416
CROP = (0, 2, 416, 240)
SHOT_S = (5.25, 2.5, 0.5, 10.1, 1.5)  # the third is context
SPEED = 30  # source pixels a second
BLOCK = (40, 60)
TARGETS = [(0, 7), (3, 80)]


def block_x(time_s: float) -> float:
    """Left side of the moving block, source pixels, wrapped before the picture's end."""
    return 20 + (SPEED * time_s) % 330


def film_pictures():
    """Shots of a white block that moves to the right over a still background."""
    for i, length in enumerate(SHOT_S):
        still = texture(i, HEIGHT, WIDTH, 30, 120)
        for k in range(round(length * FPS)):
            picture = still.copy()
            x = round(block_x(k / FPS))
            picture[100 : 100 + BLOCK[1], x : x + BLOCK[0]] = 240
            yield picture


def boxes_of(clips, targets):
    frames = [
        (c, c["start_frame"] + k) for c in clips for k in range(0, c["end_frame"] - c["start_frame"], 3)
    ]
    frames += [(clips[t["clip_index"]], t["frame"]) for t in targets]
    return [
        {
            "track_id": clip["clip_index"],
            "clip_index": clip["clip_index"],
            "shot_id": clip["shot_id"],
            "frame": frame,
            "pts": clip["start_pts"] + (frame - clip["start_frame"]) * 512,
            "time_s": frame / FPS,
            "x": block_x((frame - clip["start_frame"]) / FPS),
            "y": 100.0,
            "width": float(BLOCK[0]),
            "height": float(BLOCK[1]),
            "score": 0.9,
            "class_name": "person",
            "sharpness": 50.0,
        }
        for clip, frame in frames
    ]


def work(stage, row, store):
    folder = Scratch(store, stage.name, hashlib.sha256(stage.name.encode()).hexdigest())
    columns = stage.worker()({c: row[c] for c in (*stage.reads, *stage.locates)}, folder)
    folder.commit()
    return row | columns


def curated(folder: Path) -> tuple[dict, dict, Store]:
    """Film and sequence rows of a tiny film after the real export and caption stages."""
    path = write_film(folder / "film.mp4", film_pictures(), fps=FPS)
    film = rows_factory.film(str(path), "7" * 64)
    ends = list(itertools.accumulate(round(s * FPS) for s in SHOT_S))
    spans = list(zip([0, *ends[:-1]], ends, strict=True))
    row = sequence_row(path, spans, crop=CROP, context=(2,), film=film["film_id"], targets=TARGETS)
    clips, store = row["clips"], Store(folder / ".work")
    for target in row["recon_targets"]:
        start = clips[target["clip_index"]]["start_frame"]
        into = int(target["frame_in_clip_16fps"] * FPS / 16)
        place = {"x": block_x(into / FPS), "y": 100.0, "width": float(BLOCK[0]), "height": float(BLOCK[1])}
        target |= place | {
            "frame": start + into,
            "pts": clips[target["clip_index"]]["start_pts"] + into * 512,
            "time_s": (start + into) / FPS,
            "area_share": 0.02,
            "sharpness": 50.0,
        }
    subject = {
        "subject_id": ids.subject_id(row["sequence_id"], 0),
        "label": "[Person A]",
        "class_name": "person",
        "is_primary": True,
        "screen_time_s": sum(SHOT_S),
        "track_ids": [0, 1, 2, 3, 4],
        "clip_indices": [0, 1, 2, 3, 4],
        "confidence": 0.9,
        "colours": ["white", "light grey"],
    }
    boxes = "analyse/00/boxes.parquet"
    store.path(boxes).parent.mkdir(parents=True)
    listed = boxes_of(clips, row["recon_targets"])
    pq.write_table(pa.Table.from_pylist(listed, schema=rows.TRACK_BOX), store.path(boxes))
    whole = {k: clips[0][k] for k in ("start_pts", "start_frame", "start_s")} | {
        k: clips[-1][k] for k in ("end_pts", "end_frame", "end_s")
    }
    template = rows_factory.sequence(film, Store(folder / "unused"), text="x")
    row = {**template, **row, **whole, "subjects": [subject], "boxes": boxes, "num_shots": 4}
    for stage in (Export(), Captions()):
        row = work(stage, row, store)
    shots = [
        {
            **c,
            "shot_index": c["clip_index"],
            "transition_in": "cut",
            "transition_out": "cut",
            "confidence": 1.0,
        }
        for c in clips
    ]
    per_shot = {k: film[k][: len(shots)] for k in ("shot_scores", "aesthetics", "shot_verdicts")}
    return {**film, **per_shot, "stream": row["stream"], "shots": shots}, row, store


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("contract")
    film, sequence, store = curated(folder)
    out = folder / "out"
    facts = {"dataset": "contract", "preset": "bridged", "settings": {}}
    publish({"film": [film], "sequence": [sequence]}, store, out, facts)
    return out


@pytest.fixture(scope="module")
def item(dataset: Path) -> trainer.Item:
    items = trainer.load(dataset)
    assert len(items) == 1
    return items[0]


def white_from(frame: np.ndarray) -> float:
    """Left side of the white block in source pixels, from a frame of 832x480."""
    line = frame[240:270].mean(axis=(0, 2))
    return float(np.flatnonzero(line > 190)[0] / 2)


def test_1_files_are_true_16_fps_so_indices_and_speed_are_right(item):
    for path, clip in zip(item.paths, item.clips, strict=True):
        with av.open(str(path)) as container:
            video = container.streams.video[0]
            assert video.average_rate == 16
            times = [f.pts * f.time_base for f in container.decode(video)]
        assert times == [Fraction(k, 16) for k in range(len(times))]
        for k in range(0, len(clip), 4):
            assert white_from(clip[k]) == pytest.approx(block_x(k / 16), abs=SPEED / FPS + 1.5)


def test_1_targets_point_at_the_frame_they_were_chosen_on(item, dataset):
    assert len(item.targets) == len(TARGETS)
    for target in item.targets:
        frame = item.clips[target["clip_index"]][target["frame_in_clip_16fps"]].astype(float)
        picture = np.asarray(Image.open(dataset / target["image"])).astype(float)
        near = [np.abs(other.astype(float) - picture).mean() for other in item.clips[target["clip_index"]]]
        assert np.abs(frame - picture).mean() < 1.5
        assert int(np.argmin(near)) == target["frame_in_clip_16fps"]


def test_2_81_frames_or_4n1_are_loaded_and_no_target_is_dropped(item):
    assert [len(clip) for clip in item.clips] == [81, 37, 81, 21]
    assert item.dropped_targets == 0
    for path in item.paths:
        assert trainer.header(path)[0] % 4 == 1  # nothing is left over even beyond the first 81


def test_2_memory_frames_come_from_the_whole_file_at_4_fps(item):
    for path in item.paths:
        count, _ = trainer.header(path)
        found = trainer.memory_indices(path)
        assert 1 <= len(found) <= 10
        assert all(i % 4 == 0 and i < count for i in found)
    assert max(trainer.memory_indices(item.paths[2])) > 81  # of the shot of 10.5 s


def test_3_every_target_precedes_a_clip_that_is_trained(item):
    last = len(item.clips) - 1
    assert all(target["clip_index"] < last for target in item.targets)
    assert trainer.usable_targets(item, last) == item.targets


def test_4_clips_are_local_files_inside_the_set(item, dataset):
    with duckdb.connect(str(dataset / "annotations.duckdb"), read_only=True) as db:
        stored = [p for (p,) in db.execute("SELECT video_path FROM clips").fetchall()]
    for path in stored:
        assert "://" not in path
        assert not Path(path).is_absolute()
        assert (dataset / path).resolve().is_relative_to(dataset.resolve())
    # A remote clip of 10 s or more would be cut from its middle; this one is read from its start.
    long = item.paths[2]
    assert trainer.header(long)[0] / 16 > 10
    assert white_from(item.clips[2][0]) == pytest.approx(block_x(0), abs=2)


def test_5_every_file_decodes_so_nothing_turns_black(item, tmp_path):
    for path, clip in zip(item.paths, item.clips, strict=True):
        assert (clip.reshape(len(clip), -1).max(axis=1) > 100).all()
        assert len(trainer.read_video(path)) == trainer.header(path)[0]
    torn = tmp_path / "torn.mp4"
    shutil.copy(item.paths[0], torn)
    torn.write_bytes(torn.read_bytes()[:300])
    assert trainer.load_clip(torn).max() == 0  # what it would look like


def test_6_sequences_have_at_least_two_clips(dataset, item):
    entries = trainer.sequences(dataset)
    assert [entry["sequence_id"] for entry in entries] == [item.sequence_id]
    assert len(entries[0]["sequence_clips"]) == 4
    order = [clip["sequence_order"] for clip in entries[0]["sequence_clips"]]
    assert order == [0, 1, 2, 3]


def test_7_captions_split_where_the_trainer_splits(item, dataset):
    with duckdb.connect(str(dataset / "annotations.duckdb"), read_only=True) as db:
        columns = db.execute("SELECT global_caption, shot_caption FROM clips ORDER BY clip_index").fetchall()
    for caption, (told, shot) in zip(item.captions, columns, strict=True):
        local, whole = trainer.split_text(caption)
        assert local == caption
        assert whole != caption
        assert whole.rstrip(";") == told
        assert caption.endswith(f"shot caption: {shot}")
        assert caption.count("shot caption:") == caption.count("global caption:") == 1


def test_8_identity_text_lives_in_each_clip(item):
    for caption in item.captions:
        _, whole = trainer.split_text(caption)
        described = dict(parse_inventory(whole.rstrip(";")))
        assert described == {"[Person A]": "person in mostly white and light grey tones"}
        assert labels(caption[caption.index("shot caption:") :]) == ["[Person A]"]
    for target in item.targets:
        assert "person in mostly white and light grey tones" in target["caption"]


def test_9_containers_state_their_frame_count(item):
    for path in item.paths:
        with av.open(str(path)) as container:
            stated = container.streams.video[0].frames
            assert stated == sum(1 for _ in container.decode(video=0)) > 0


def test_10_captions_hold_labels_not_pronouns(item):
    for caption in item.captions:
        assert lint_caption(caption, ["[Person A]"]) == []
    loose = item.captions[0] + " He waves."
    assert lint_caption(loose, ["[Person A]"], LintSettings(strictness="published")) == []
    assert lint_caption(loose, ["[Person A]"]) != []


def test_11_the_trainers_centre_crop_takes_nothing_away(item):
    for path, clip in zip(item.paths, item.clips, strict=True):
        with av.open(str(path)) as container:
            stored = next(container.decode(video=0)).to_ndarray(format="rgb24")
        assert stored.shape == (480, 832, 3)
        assert np.array_equal(stored, clip[0])
        # The block at the left margin, which a centre crop of the film would touch first, is whole.
        assert white_from(clip[0]) == pytest.approx(20, abs=2)
