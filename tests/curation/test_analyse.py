import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from curation import timing, weights
from curation.engine.stage import BadInput
from curation.engine.store import recipe
from curation.models.appearance import load_looks
from curation.models.subject_detector import iou
from curation.stages.analyse import Analyse, moments
from curation.video.decode import decode_span
from tests.curation.test_subject_detector import scene
from tests.curation.tiny_film import sequence_row, write_film
from tests.support import scratch, shared

SHOT = 36


def pictures():
    """Three shots of 36 frames; a disc moves in the first and the last, half of the second has text."""
    for k in range(SHOT):
        yield cv2.cvtColor(scene(70 + 3 * k, 90), cv2.COLOR_BGR2RGB)
    for k in range(SHOT):
        still = np.full((180, 320, 3), 60, np.uint8)
        yield still if k < 18 else cv2.putText(still, "SOME LETTERS", (40, 100), 0, 1.0, (255, 255, 255), 2)
    for k in range(SHOT):
        yield cv2.cvtColor(np.ascontiguousarray(scene(90 + 3 * k, 70)[::-1]), cv2.COLOR_BGR2RGB)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = write_film(tmp_path_factory.mktemp("film") / "film.mp4", pictures())
    return {**sequence_row(path, [(0, 36), (36, 72), (72, 108)]), "film_id": "film"}


def run(row, tmp_path, **settings):
    stage = Analyse(**{"detector": "opencv", "appearance": "embedded", **settings})
    folder = scratch(tmp_path)
    out = stage.worker()({c: row[c] for c in (*stage.reads, *stage.locates)}, folder)
    folder.commit()
    assert set(out) == set(stage.writes.names)
    return out, folder


@pytest.fixture(scope="module")
def analysed(film, tmp_path_factory):
    return run(film, tmp_path_factory.mktemp("work"))


def tables(analysed):
    out, folder = analysed
    return tuple(pq.read_table(folder.open(out[name])).to_pylist() for name in ("boxes", "text_boxes"))


def test_tracks_follow_the_disc_and_never_cross_a_cut(analysed):
    boxes, _ = tables(analysed)
    assert {b["clip_index"] for b in boxes} >= {0, 2}
    by_track = {}
    for box in boxes:
        by_track.setdefault(box["track_id"], set()).add(box["clip_index"])
    assert all(len(clips) == 1 for clips in by_track.values())
    for clip, x0, y in ((0, 70, 90), (2, 90, 179 - 70)):
        own = [b for b in boxes if b["clip_index"] == clip]
        hits = []
        for b in own:
            x = x0 + 3 * (b["frame"] - clip * SHOT)
            truth = np.array([[x - 28, y - 28, 56, 56]])
            hits.append(iou(np.array([[b["x"], b["y"], b["width"], b["height"]]]), truth)[0, 0] > 0.5)
        assert len(own) >= 8
        assert np.mean(hits) > 0.8


def test_text_is_found_where_it_is_and_empty_frames_have_a_row(analysed):
    _, text = tables(analysed)
    second = {t["frame"]: t for t in text if t["clip_index"] == 1}
    assert sorted(second) == [36, 48, 60]
    assert [second[frame]["x"] is None for frame in (36, 48, 60)] == [True, True, False]
    assert second[60]["x"] == pytest.approx(40, abs=12)
    assert second[60]["y"] == pytest.approx(75, abs=12)
    assert len({t["frame"] for t in text}) == 9  # three per shot of a second and a half


def test_every_box_frame_is_in_the_exported_clip(analysed, film):
    boxes, _ = tables(analysed)
    for box in boxes:
        clip = film["clips"][box["clip_index"]]
        step = film["stream"]["time_base_den"] // (24 * film["stream"]["time_base_num"])
        assert timing.is_shown(film["stream"], clip["start_pts"], box["pts"], box["pts"] + step)
        assert box["frame"] == clip["start_frame"] + (box["pts"] - clip["start_pts"]) // step


def test_one_decode_and_every_model_is_recorded(analysed):
    out, folder = analysed
    assert folder.counters["decoded_frames"] == 108
    assert folder.counters["decoded_s"] == pytest.approx(4.5)
    assert out["analysed_frames"] == 36
    parts = [m["part"] for m in out["analysis_models"]]
    assert parts == ["text", "detector", "regions", "tracker", "appearance"]
    assert {m["tier"] for m in out["analysis_models"] if m["part"] == "detector"} == {"embedded"}


def test_looks_of_the_disc_agree_over_the_cut(analysed):
    out, folder = analysed
    boxes, _ = tables(analysed)
    looks = load_looks(folder.open(out["embeddings"]))
    assert sorted(looks) == sorted({b["track_id"] for b in boxes})
    longest = {}
    for clip in (0, 2):
        own = [b["track_id"] for b in boxes if b["clip_index"] == clip]
        longest[clip] = looks[max(set(own), key=own.count)]
    assert longest[0].colour @ longest[2].colour > 0.8
    assert "orange" in longest[0].colours


def test_result_repeats_byte_for_byte(film, analysed, tmp_path):
    out, folder = analysed
    again, second = run(film, tmp_path)
    assert again == out
    for name in ("boxes", "text_boxes", "embeddings"):
        assert folder.open(out[name]).read_bytes() == second.open(again[name]).read_bytes()


def test_context_shots_are_passed_over(film, tmp_path):
    clips = [dict(c, is_context=c["clip_index"] == 0) for c in film["clips"]]
    out, folder = run({**film, "clips": clips}, tmp_path)
    for table in tables((out, folder)):
        assert 0 not in {r["clip_index"] for r in table}


def test_boxes_are_in_source_pixels(film, tmp_path, analysed):
    small, folder = run(film, tmp_path, analysis_side=160)
    boxes, _ = tables((small, folder))
    at = [b for b in boxes if b["clip_index"] == 0 and b["frame"] > 12]
    centres = [(b["x"] + b["width"] / 2) - (70 + 3 * b["frame"]) for b in at]
    assert np.abs(np.median(centres)) < 20


@pytest.mark.parametrize("fps", [1, 2, 4, 8, 16])
def test_sampling_takes_frames_on_screen_at_multiples(film, fps):
    stream, clips = film["stream"], film["clips"]
    frames = decode_span(film["path"], stream, clips[0]["start_pts"], clips[-1]["end_pts"])
    taken = [m for m in moments(frames, stream, clips, 1, fps) if m.wants_boxes]
    assert len(taken) == 3 * round(1.5 * fps + 0.49)
    assert [m.first for m in taken].count(True) == 3
    assert [m.frame_index for m in taken if m.first] == [0, 36, 72]


def test_settings_are_checked():
    with pytest.raises(ValueError, match="divide the export rate"):
        Analyse(track_fps=5)
    with pytest.raises(ValueError, match="detector must be one of"):
        Analyse(detector="yolo12")
    with pytest.raises(ValueError, match="appearance must be one of"):
        Analyse(appearance="best")
    with pytest.raises(ValueError, match="at least 128"):
        Analyse(analysis_side=64)


def test_other_weights_mean_another_key(film, monkeypatch, tmp_path):
    monkeypatch.setenv(weights.FOLDER_VARIABLE, str(tmp_path))
    plain = recipe(Analyse(), film).key
    assert plain == recipe(Analyse(), {**film, "path": "elsewhere.mp4"}).key
    assert plain != recipe(Analyse(track_fps=4), film).key
    (tmp_path / "yolox_nano.onnx").write_bytes(shared("weights/yolox_nano.onnx").read_bytes())
    assert plain != recipe(Analyse(), film).key
    assert Analyse(appearance="embedded").appearance_files() == dict.fromkeys(
        ("reid", "face_detector", "face")
    )
    with pytest.raises(weights.WeightsMissing, match="pull osnet"):
        Analyse(appearance="full").fingerprint()


def test_a_file_that_went_away_is_bad_input(film, tmp_path):
    with pytest.raises(BadInput):
        run({**film, "path": str(tmp_path / "gone.mp4")}, tmp_path)
