import itertools
import json

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation import rows
from curation.engine.stage import Reject
from curation.framing.overlays import Inside
from curation.models.text_detector import TextDetector
from curation.shots.signals import THUMB_HEIGHT, THUMB_WIDTH, Signals
from curation.stages.crop import Crop, flat_pictures, inside_bars, marks, obstacles
from curation.video.decode import decode_at, to_bgr
from curation.video.probe import probe
from tests.support import scratch, shared

WIDTH, HEIGHT, TICKS = 640, 360, 1000
STREAM = {
    "width": WIDTH,
    "height": HEIGHT,
    "sar_num": 1,
    "sar_den": 1,
    "first_pts": 0,
    "time_base_num": 1,
    "time_base_den": TICKS,
}
BARS = {f"bar_{side}": 0 for side in ("top", "bottom", "left", "right")}


def clip(index: int, start_s: float, end_s: float, *, is_context: bool = False) -> dict:
    start, end = round(start_s * TICKS), round(end_s * TICKS)
    return {"clip_index": index, "start_pts": start, "end_pts": end, "is_context": is_context}


def text_rows(clips, texts, step_s: float = 0.5) -> list[dict]:
    """Rows every `step_s` of each clip; `texts` are (from s, to s, x, y, width, height)."""
    found = []
    for c in clips:
        for pts in range(c["start_pts"], c["end_pts"], round(step_s * TICKS)):
            base = {"clip_index": c["clip_index"], "frame": pts, "pts": pts, "time_s": pts / TICKS}
            here = [t[2:] for t in texts if t[0] <= pts / TICKS < t[1]]
            for x, y, width, height in here:
                found.append(base | {"x": x, "y": y, "width": width, "height": height, "score": 0.8})
            if not here:
                found.append(base | dict.fromkeys(("x", "y", "width", "height", "score")))
    return found


def track_rows(clips, boxes) -> list[dict]:
    """The same boxes (x, y, width, height) of a person at the start of every clip."""
    return [
        {
            "track_id": i,
            "clip_index": c["clip_index"],
            "shot_id": f"s{c['clip_index']}",
            "frame": c["start_pts"],
            "pts": c["start_pts"],
            "time_s": c["start_pts"] / TICKS,
            "x": x,
            "y": y,
            "width": width,
            "height": height,
            "score": 0.9,
            "class_name": "person",
            "sharpness": 100.0,
        }
        for c in clips
        for i, (x, y, width, height) in enumerate(boxes)
    ]


def run(tmp_path, clips, texts, boxes, *, stream=STREAM, bars=BARS, thumbs=None, **settings):
    """The stage on artefacts made for it."""
    folder = scratch(tmp_path)
    made = {
        "text_boxes": (text_rows(clips, texts), rows.TEXT_BOX),
        "boxes": (track_rows(clips, boxes), rows.TRACK_BOX),
    }
    row = {"sequence_id": "q", "stream": stream, "clips": clips, "scores": bars}
    for name, (values, schema) in made.items():
        pq.write_table(pa.Table.from_pylist(values, schema=schema), folder.path(f"{name}.parquet"))
        row[name] = folder.ref(f"{name}.parquet")
    end = clips[-1]["end_pts"]
    signals_of(range(0, end, 40), thumbs).save(folder.path("signals.npz"))
    row["signals"], row["segments"] = (
        [folder.ref("signals.npz")],
        [{"index": 0, "start_pts": 0, "end_pts": None}],
    )
    folder.commit()
    row["stills"] = []
    written = Crop(find_marks=False, **settings).worker()(row, scratch(tmp_path, "crop"))
    assert set(written) == set(rows.CROP.names)
    pa.Table.from_pylist([written], schema=rows.CROP)
    return written


def signals_of(pts, thumbs=None) -> Signals:
    n = len(pts)
    if thumbs is None:
        one = np.random.default_rng(0).integers(0, 255, (THUMB_HEIGHT, THUMB_WIDTH), np.uint8)
        thumbs = np.repeat(one[None], n, axis=0)
    return Signals(
        pts=np.array(pts, np.int64),
        content=np.zeros((n, 3), np.float32),
        luma=np.zeros((n, 3), np.float32),
        thumbs_u8=thumbs,
        corrupt=np.zeros(n, bool),
        key_frame=np.zeros(0, np.int64),
        sharpness=np.zeros(0, np.float32),
        bars=np.zeros((0, 4), np.int16),
    )


CLIPS = [clip(0, 0, 5), clip(1, 5, 10)]
SUBTITLE = (3.0, 6.5, 200, 310, 240, 24)
LOGO = (0.0, 10.0, 540, 20, 80, 22)
TITLE = (1.0, 4.0, 200, 150, 240, 40)


def test_clean_film_loses_only_what_the_shape_asks(tmp_path):
    found = run(tmp_path, CLIPS, [], [])
    assert found["overlays"] == []
    assert (found["crop_y"], found["crop_height"]) == (0, 360)
    assert found["crop_width"] == 624


def test_bars_subtitles_and_logo_go_together_and_the_head_stays(tmp_path):
    bars = BARS | {"bar_top": 12, "bar_bottom": 10}
    person = (250, 30, 140, 300)
    found = run(tmp_path, CLIPS, [SUBTITLE, LOGO], [person], bars=bars)
    assert {o["kind"] for o in found["overlays"]} == {"subtitle", "logo"}
    x, y = found["crop_x"], found["crop_y"]
    width, height = found["crop_width"], found["crop_height"]
    assert 12 < y <= 30
    assert y + height <= 310
    assert x + width <= 540
    assert x <= person[0]
    assert x + width >= person[0] + person[2]


def test_whole_sequence_is_served_by_one_crop(tmp_path):
    high = (6.0, 9.0, 220, 10, 200, 24)
    found = run(tmp_path, CLIPS, [SUBTITLE, high], [])
    assert found["crop_y"] >= 34
    assert found["crop_y"] + found["crop_height"] <= 310


def test_scene_text_stays_in_the_picture(tmp_path):
    found = run(tmp_path, CLIPS, [(0.0, 5.0, 420, 120, 130, 30)], [])
    assert [o["kind"] for o in found["overlays"]] == ["scene_text"]
    assert found["crop_height"] == 360


def test_text_in_a_context_shot_is_no_obstacle(tmp_path):
    clips = [CLIPS[0], clip(1, 5, 10, is_context=True)]
    found = run(tmp_path, clips, [(6.0, 9.0, 200, 310, 240, 24)], [])
    assert found["crop_height"] == 360


@pytest.mark.parametrize(
    ("texts", "boxes", "settings", "reason"),
    [
        ([TITLE], [], {}, "title_over_picture"),
        ([SUBTITLE, TITLE], [], {}, "title_over_picture"),
        ([(3.0, 6.5, 200, 240, 240, 24)], [(200, 230, 200, 130)], {}, "subtitles_over_subject"),
        ([(3.0, 6.5, 200, 240, 240, 24)], [], {"min_crop_share": 0.7}, "subtitles_over_subject"),
        ([], [], {"min_height": 400}, "crop_too_small"),
        ([], [], {"min_crop_share": 0.99}, "crop_too_small"),
        ([], [(0, 0, 90, 360), (550, 0, 90, 360)], {"aspect_width": 480}, "subjects_do_not_fit"),
        ([LOGO], [(380, 0, 260, 120)], {"min_crop_share": 0.8}, "logo_over_subject"),
        ([LOGO, SUBTITLE], [], {"min_crop_share": 0.85}, "text_over_picture"),
    ],
)
def test_rejections_name_what_is_in_the_way(tmp_path, texts, boxes, settings, reason):
    with pytest.raises(Reject) as caught:
        run(tmp_path, CLIPS, texts, boxes, **settings)
    assert caught.value.reason == reason
    assert caught.value.detail
    assert "\n" not in caught.value.detail


def test_card_is_seen_by_its_flat_picture(tmp_path):
    clips = [clip(0, 0, 5), clip(1, 5, 8), clip(2, 8, 12)]
    card = [(5.0, 8.0, 200, 150, 240, 40)]
    assert run(tmp_path / "a", clips, card, [])["overlays"][0]["kind"] == "scene_text"
    thumbs = np.random.default_rng(0).integers(0, 255, (300, THUMB_HEIGHT, THUMB_WIDTH), np.uint8)
    thumbs[125:200] = 16
    thumbs[125:200, 8:10, 10:20] = 180
    with pytest.raises(Reject, match="title_over_picture"):
        run(tmp_path / "b", clips, card, [], thumbs=thumbs)


def test_anamorphic_pixels(tmp_path):
    stream = STREAM | {"width": 720, "height": 576, "sar_num": 64, "sar_den": 45}
    found = run(tmp_path, CLIPS, [], [], stream=stream)
    shown = found["crop_width"] * 64 / 45 / found["crop_height"]
    assert shown == pytest.approx(832 / 480, rel=0.005)


def test_same_input_same_result(tmp_path):
    person = (250, 30, 140, 300)
    a = run(tmp_path / "a", CLIPS, [SUBTITLE, LOGO], [person])
    b = run(tmp_path / "b", CLIPS, [SUBTITLE, LOGO], [person])
    assert json.dumps(a) == json.dumps(b)


def test_inside_leaves_off_the_soft_edge_of_bars_only():
    inside = inside_bars(STREAM, BARS | {"bar_top": 40, "bar_right": None})
    assert inside == Inside(left=0, top=44, right=640, bottom=360)


def test_subtitle_bars_the_whole_width():
    inside = Inside(10, 0, 600, 300)
    subtitle = {"kind": "subtitle", "x": 200, "y": 250, "width": 90, "height": 20}
    logo = subtitle | {"kind": "logo"}
    expected = [[10, 250, 590, 20], [200, 250, 90, 20]]
    np.testing.assert_array_equal(obstacles([subtitle, logo], inside), expected)


def test_flat_pictures_looks_inside_the_bars_at_the_frame_on_screen():
    thumbs = np.random.default_rng(0).integers(0, 255, (3, THUMB_HEIGHT, THUMB_WIDTH), np.uint8)
    thumbs[1, 3:15] = 90
    signals = [signals_of([0, 40, 80], thumbs)]
    inside = Inside(0, 60, 640, 300)
    assert flat_pictures(signals, [0, 39, 40, 79, 80, 500], STREAM, inside) == [
        False,
        False,
        True,
        True,
        False,
        False,
    ]
    assert flat_pictures([], [0, 40], STREAM, inside) == [False, False]


@pytest.mark.parametrize("field", ["min_crop_share", "min_kept"])
def test_shares_are_checked(field):
    with pytest.raises(ValueError, match="shares"):
        Crop(**{field: 1.5})


def test_logo_without_letters_is_found_in_stills(tmp_path):
    """A ring in the corner of seven shots, seen at half the film's size."""
    rng = np.random.default_rng(0)
    folder, stills = scratch(tmp_path), []
    for shot in range(7):
        scene = np.full((180, 320), 90, np.uint8)
        for _ in range(15):
            at = (int(rng.integers(0, 320)), int(rng.integers(0, 180)))
            cv2.circle(scene, at, int(rng.integers(10, 40)), int(rng.integers(20, 160)), -1)
        cv2.circle(scene, (290, 24), 10, 235, 3, cv2.LINE_AA)
        for part in range(3):
            name = f"still-{shot}-{part}.jpg"
            cv2.imwrite(str(folder.path(name)), scene, [cv2.IMWRITE_JPEG_QUALITY, 90])
            stills.append({"clip_index": shot, "image": folder.ref(name)})
    folder.commit()
    clips = [clip(i, i / 2, (i + 1) / 2) | {"start_s": i / 2, "end_s": (i + 1) / 2} for i in range(7)]
    stream, inside = {**STREAM, "width": 640, "height": 360}, Inside(0, 0, 640, 360)
    (logo,) = marks(stills, stream, clips, inside, [], folder)
    assert logo["kind"] == "logo"
    assert (logo["start_s"], logo["end_s"]) == (0, 3.5)
    middle = logo["x"] + logo["width"] / 2, logo["y"] + logo["height"] / 2
    assert middle == pytest.approx((580, 48), abs=4)
    assert 48 <= logo["width"] <= 76
    assert marks(stills, stream, clips, inside, [logo], folder) == []
    assert marks(stills[:15], stream, clips, inside, [], folder) == []
    assert marks([], stream, clips, inside, [], folder) == []


@pytest.mark.slow
def test_burnt_in_subtitles_of_a_real_film_are_gone(tmp_path):
    """Subtitled shots of a trailer: no text is left in the crop, sampled three times as densely."""
    path = str(shared("derived/sintel_trailer_subs_en.mp4"))
    stream, _, _ = probe(path)
    second = stream["time_base_den"] / stream["time_base_num"]
    cuts_s = [12.0, 14.0, 16.58, 18.2, 23.875, 25.96, 27.5, 29.0, 32.2, 36.0, 40.0]
    clips = []
    for index, (start, end) in enumerate(itertools.pairwise(cuts_s)):
        span = {"start_pts": round(start * second), "end_pts": round(end * second)}
        clips.append({"clip_index": index, "is_context": False, **span})
    detector = TextDetector()

    def detect(step_s, crop=None):
        found = []
        for c in clips:
            pts = np.arange(c["start_pts"], c["end_pts"], step_s * second).astype(int).tolist()
            for i, frame in decode_at(path, stream, pts):
                picture = to_bgr(frame, stream)
                if crop:
                    x, y, width, height = crop
                    picture = picture[y : y + height, x : x + width]
                base = {"clip_index": c["clip_index"], "frame": pts[i], "pts": pts[i]}
                base["time_s"] = pts[i] / second
                boxes = detector.detect(picture).tolist() or [[None] * 5]
                names = ("x", "y", "width", "height", "score")
                found += [base | dict(zip(names, b, strict=True)) for b in boxes]
        return found

    folder = scratch(tmp_path)
    pq.write_table(pa.Table.from_pylist(detect(0.5), schema=rows.TEXT_BOX), folder.path("text_boxes.parquet"))
    pq.write_table(pa.Table.from_pylist([], schema=rows.TRACK_BOX), folder.path("boxes.parquet"))
    folder.commit()
    row = {
        "sequence_id": "q",
        "stream": stream,
        "clips": clips,
        "scores": BARS,
        "signals": [],
        "segments": [],
        "text_boxes": folder.ref("text_boxes.parquet"),
        "boxes": folder.ref("boxes.parquet"),
        "stills": [],
    }
    found = Crop(find_marks=False).worker()(row, scratch(tmp_path, "crop"))
    assert {o["kind"] for o in found["overlays"]} == {"subtitle"}
    assert found["crop_height"] >= 150
    crop = tuple(found[f"crop_{n}"] for n in ("x", "y", "width", "height"))
    left = detect(1 / 6, crop)
    frames = {r["frame"] for r in left}
    lines = {r["frame"] for r in left if r["x"] is not None and r["height"] < 0.2 * crop[3]}
    assert len(frames) > 150
    assert len(lines) <= 0.02 * len(frames)
