"""The two sources of training sequences, and every fault of the trainer's contract, one line each."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")

from memento_model.config import FrameGrid
from memento_model.errors import DataError
from memento_model.training.data import (
    Contract,
    candidate_frames,
    check,
    read_sequences,
    split_by_film,
    to_official,
)
from memento_model.training.inputs import read_inputs
from memento_model.training.samples import targets_of
from tests.memento_model.films import (
    CLIP_FRAMES,
    caption,
    change,
    config,
    write_clip,
    write_dataset,
    write_json,
)
from tests.memento_model.tiny import GRID

CONTRACT = Contract(grid=GRID, max_candidates=24)


@pytest.fixture
def dataset(tmp_path):
    return write_dataset(tmp_path / "set")


def faults(dataset):
    return list(check(read_sequences(dataset), CONTRACT).faults)


def test_a_published_dataset_gives_its_kept_sequences(dataset):
    checked = check(read_sequences(dataset), CONTRACT)
    assert checked.faults == ()
    assert [s.sequence_id for s in checked.sequences] == ["f0-q0", "f1-q0"]
    first = checked.sequences[0]
    assert [c.num_frames for c in first.clips] == list(CLIP_FRAMES)
    assert [c.start_frame for c in first.clips] == [0, 13, 34]
    assert first.clips[1].candidates == (0, 4, 8, 12, 16, 20)
    assert first.clips[1].caption == caption(1)
    assert first.clips[1].global_caption == "[Person A]: a diver in red"
    assert [(t.clip, t.frame) for t in first.targets] == [(0, 5), (1, 20)]


def test_a_condition_selects_sequences(dataset):
    assert [s.sequence_id for s in read_sequences(dataset, "film_id = 'f1'")] == ["f1-q0"]
    assert read_sequences(dataset, "num_shots > 3 OR status = 'rejected'") == []
    with pytest.raises(DataError, match=r'column "num_shotz" not found.*"num_shots"'):
        read_sequences(dataset, "num_shotz > 3")


def test_the_official_form_goes_out_and_comes_back(dataset, tmp_path):
    there = check(read_sequences(dataset), CONTRACT).sequences
    listed = to_official(there, tmp_path)
    assert set(listed[0]) >= {"sequence_id", "sequence_clips", "reconstruct_targets", "subjects"}
    assert listed[0]["subjects"] == ["[Person A]"]
    assert listed[0]["sequence_clips"][1]["video_path"] == "set/clips/f0-q0/01.mp4"
    back = check(read_sequences(write_json(tmp_path / "official.json", listed)), CONTRACT)
    assert back.faults == ()
    assert to_official(back.sequences, tmp_path) == listed


def test_a_json_file_must_be_of_the_official_form(dataset, tmp_path):
    for broken in ({"a": 1}, [{"sequence_id": "x"}], [3]):
        with pytest.raises(DataError, match="official form"):
            read_sequences(write_json(tmp_path / "x.json", broken))
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(DataError, match="official form"):
        read_sequences(tmp_path / "x.json")
    remote = [{"sequence_id": "s", "sequence_clips": [{"bos_url": "bos://x", "sequence_order": 0}]}]
    with pytest.raises(DataError, match="bos://x is remote"):
        read_sequences(write_json(tmp_path / "x.json", remote))
    with pytest.raises(DataError, match="where"):
        read_sequences(write_json(tmp_path / "x.json", []), "num_shots > 3")


def test_what_is_no_dataset_says_so(tmp_path):
    with pytest.raises(DataError, match="make curate"):
        read_sequences(tmp_path)
    (tmp_path / "annotations.duckdb").write_bytes(b"no database")
    with pytest.raises(DataError, match=r"annotations\.duckdb"):
        read_sequences(tmp_path)


def set_caption(dataset, text):
    change(dataset, "UPDATE clips SET caption = ? WHERE clip_id = 'f0-q0-01'", text)


def set_target(dataset, what, value):
    change(dataset, f"UPDATE recon_targets SET {what} = ? WHERE recon_id = 'f0-q0-r0'", value)


def drop_clips(dataset):
    change(dataset, "DELETE FROM clips WHERE sequence_id = 'f0-q0' AND clip_index > 1")
    change(dataset, "DELETE FROM clips WHERE sequence_id = 'f0-q0' AND clip_index > 0")
    change(dataset, "DELETE FROM recon_targets WHERE sequence_id = 'f0-q0'")


CLIP = "clips/f0-q0/01.mp4"
PLANTED = {
    "wrong fps": (lambda d: write_clip(d / CLIP, 1, 21, fps=24), "f0-q0-01: ", "24 fps"),
    "short clip": (lambda d: write_clip(d / "clips/f0-q0/02.mp4", 1, 8), "f0-q0-02: ", "8 frames; a shot"),
    "missing file": (lambda d: (d / CLIP).unlink(), "f0-q0-01: ", "is missing"),
    "no video": (lambda d: (d / CLIP).write_text("x"), "f0-q0-01: ", "cannot be read"),
    "target past the end": (lambda d: set_target(d, "frame_in_clip_16fps", 13), "f0-q0-r0: ", "frame 13 is"),
    "target before the start": (lambda d: set_target(d, "frame_in_clip_16fps", -1), "f0-q0-r0: ", "frame -1"),
    "target in no clip": (lambda d: set_target(d, "clip_id", "f1-q0-00"), "f0-q0-r0: ", "do not name one"),
    "clip index off": (lambda d: set_target(d, "clip_index", 2), "f0-q0-r0: ", "do not name one"),
    "empty target caption": (lambda d: set_target(d, "caption", " "), "f0-q0-r0: ", "caption is empty"),
    "unknown target label": (lambda d: set_target(d, "caption", "[Animal B]: x"), "f0-q0-r0: ", "[Animal B]"),
    "no caption": (lambda d: set_caption(d, None), "f0-q0-01: ", "caption is empty"),
    "empty caption": (lambda d: set_caption(d, ""), "f0-q0-01: ", "caption is empty"),
    "empty shot": (lambda d: set_caption(d, "global caption: ; shot caption: "), "f0-q0-01: ", "is empty"),
    "no grammar": (lambda d: set_caption(d, "A diver."), "f0-q0-01: ", "global caption:"),
    "unknown label": (
        lambda d: set_caption(d, "global caption: [Person A]: x; shot caption: [Person B] swims."),
        "f0-q0-01: ",
        "[Person B] is described nowhere",
    ),
    "one clip": (drop_clips, "f0-q0: ", "1 clip(s)"),
}  # fmt: skip


@pytest.mark.parametrize("plant", PLANTED)
def test_each_fault_is_one_line_with_its_id(dataset, plant):
    do, owner, told = PLANTED[plant]
    do(dataset)
    found = faults(dataset)
    assert len(found) == 1, found
    assert found[0].startswith(owner)
    assert told in found[0]
    assert "\n" not in found[0]


def test_clip_index_off_in_the_official_form(dataset, tmp_path):
    listed = to_official(check(read_sequences(dataset), CONTRACT).sequences, tmp_path)
    listed[0]["reconstruct_targets"][0]["clip_index"] = 3
    del listed[1]["sequence_clips"][0]["caption"]
    found = faults(write_json(tmp_path / "x.json", listed))
    assert found == ["f0-q0-r0: clip_index 3 is none of the 3 clips", "f1-q0-00: the caption is empty"]


def test_all_faults_stop_the_run_or_are_counted(dataset, tmp_path):
    (dataset / CLIP).unlink()
    set_target(dataset, "frame_in_clip_16fps", 99)
    with pytest.raises(DataError) as stopped:
        read_inputs(config(dataset, tmp_path / "cache"))
    assert [line.partition(":")[0] for line in stopped.value.faults[:-1]] == ["f0-q0-01", "f0-q0-r0"]
    inputs = read_inputs(config(dataset, tmp_path / "cache", on_bad_sample="skip"))
    assert [s.sequence_id for s in inputs.train] == ["f1-q0"]
    assert len(inputs.faults) == 2
    assert inputs.skipped == 2
    with pytest.raises(DataError, match="no sequence can be trained on"):
        read_inputs(config(dataset, tmp_path / "cache", on_bad_sample="skip", where="film_id = 'f0'"))


def test_short_clips_come_with_the_way_to_train_all_the_same(dataset, tmp_path):
    write_clip(dataset / "clips/f0-q0/02.mp4", 1, 8)
    with pytest.raises(DataError) as stopped:
        read_inputs(config(dataset, tmp_path / "cache"))
    *_, short, remedy = stopped.value.faults
    assert short.startswith("1 of these faults are clips too short for a shot of 9 frames, as the presets")
    assert "--set data.on_bad_sample=skip (memento cache: --skip-bad)" in remedy
    (dataset / CLIP).unlink()
    with pytest.raises(DataError) as stopped:  # its sequence is lost anyway
        read_inputs(config(dataset, tmp_path / "cache"))
    assert "too short" not in str(stopped.value)
    assert any("8 frames; a shot needs 9" in fault for fault in stopped.value.faults), "named all the same"


def test_candidates_are_four_a_second_thinned_evenly():
    assert candidate_frames(9, 24) == (0, 4, 8)
    many = candidate_frames(400, 10)
    assert len(many) == 10
    assert {b - a for a, b in itertools.pairwise(many)} == {40}


def test_a_film_is_on_one_side_for_ever(dataset):
    sequence = check(read_sequences(dataset), CONTRACT).sequences[0]
    many = [replace(sequence, sequence_id=f"{f}-{k}", film_id=f"film{f}") for f in range(200) for k in (0, 1)]
    train, held = split_by_film(many, 0.1)
    films = {s.film_id for s in held}
    assert not films & {s.film_id for s in train}
    assert len(train) + len(held) == 400
    assert 8 <= len(films) <= 34
    fewer = {s.film_id for s in split_by_film(many[:200], 0.1)[1]}
    assert fewer == {f for f in films if int(f.removeprefix("film")) < 100}
    assert split_by_film(many, 0.0) == (many, [])
    assert split_by_film(many[:2], 0.05) == (many[:2], [])
    assert len(split_by_film(many[:4], 1e-9)[1]) == 2


def test_the_grid_decides_what_is_short(dataset):
    for num_frames, targets, told in ((17, [1, 2], 0), (21, [1], 2), (25, [], 4)):
        contract = Contract(grid=FrameGrid(num_frames=num_frames, height=32, width=48), max_candidates=24)
        found = check(read_sequences(dataset), contract)
        assert len(found.faults) == found.skipped == told
        assert json.dumps(found.faults).count(f"; a shot needs {num_frames}") == told
        assert len(found.sequences) == (2 if targets else 0)  # a short clip is remembered
        assert all(targets_of(s) == targets and len(s.clips) == 3 for s in found.sequences)
