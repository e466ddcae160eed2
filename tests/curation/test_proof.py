"""Proof pictures: what is drawn on them, and which frames they show."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation import rows
from curation.framing import pictures
from curation.stages.proof import Proof, busiest_frame, telling_spans, telling_still
from tests.curation.rows_factory import stream
from tests.support import scratch


def write_film(path: Path, count: int, size: tuple[int, int], rate: int, gop: int = 10) -> None:
    """Frame n is grey of value 2 n, with a white square whose left edge is at x = n."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=rate, options={"g": str(gop), "crf": "5"})
        video.height, video.width = size
        video.pix_fmt = "yuv420p"
        for n in range(count):
            picture = np.full((*size, 3), 2 * n, np.uint8)
            picture[20:60, n : n + 40] = 255
            for packet in video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in video.encode():
            container.mux(packet)


@pytest.fixture
def row(tmp_path: Path) -> dict:
    """A one-clip sequence of a film of 160x120 at 25 fps; the subject is the white square."""
    folder = scratch(tmp_path, "export")
    for n in (0, 30):
        picture = np.full((60, 80), 2 * n, np.uint8)
        cv2.imwrite(str(folder.path(f"still-{n}.jpg")), picture, [cv2.IMWRITE_JPEG_QUALITY, 95])
    write_film(folder.path("clip.mp4"), 33, (96, 128), 16)
    boxes = [
        {
            **{f.name: None for f in rows.TRACK_BOX},
            **{"track_id": 3, "clip_index": 0, "shot_id": "s", "frame": n, "pts": 512 * n, "time_s": n / 25},
            **{"x": float(n), "y": 20.0, "width": 40.0, "height": 40.0, "score": 0.9},
        }
        for n in range(0, 50, 5)
    ]
    pq.write_table(pa.Table.from_pylist(boxes, schema=rows.TRACK_BOX), folder.path("boxes.parquet"))
    refs = {name: folder.ref(name) for name in ("clip.mp4", "boxes.parquet")}
    stills = [
        {"clip_index": 0, "frame": n, "pts": 512 * n, "time_s": n / 25, "image": folder.ref(f"still-{n}.jpg")}
        for n in (0, 30)
    ]
    folder.commit()
    span = {"start_pts": 0, "end_pts": 60 * 512, "start_frame": 0, "end_frame": 60}
    film = stream(2.4) | {"width": 160, "height": 120, "time_base_num": 1, "time_base_den": 12800}
    overlay = {"x": 20.0, "y": 100.0, "width": 90.0, "height": 15.0, "start_s": 1.0, "end_s": 1.4}
    return {
        "sequence_id": "q",
        "stills": stills,
        "stream": film,
        "clips": [{"shot_id": "s", "clip_index": 0, "is_context": False, **span}],
        **{"crop_x": 16, "crop_y": 8, "crop_width": 128, "crop_height": 96},
        "overlays": [{"kind": "subtitle", **overlay}],
        "subjects": [{"subject_id": "q-p00", "label": "[Subject A]", "track_ids": [3]}],
        "boxes": refs["boxes.parquet"],
        "clip_files": [
            {"clip_index": 0, "video": refs["clip.mp4"], "num_frames": 33, "start_s": 0.0, "end_s": 2.4}
        ],
    }


def test_proof_pictures(tmp_path: Path, row: dict) -> None:
    folder = scratch(tmp_path, "proof")
    made = Proof().worker()(row, folder)["proof"]
    folder.commit()
    assert [(p["kind"], p["about"]) for p in made] == [
        ("strip", "0"),
        ("boxes", "0"),
        ("crop", "q"),
        ("cast", "q-p00"),
    ]
    shown = {p["kind"]: cv2.imread(str(folder.open(p["image"]))) for p in made}
    width = 3 * Proof.strip_width + 2 * pictures.GAP
    assert shown["strip"].shape == (156, width, 3)
    greys = [int(shown["strip"][-10, k * (Proof.strip_width + pictures.GAP) + 8].mean()) for k in range(3)]
    assert greys == pytest.approx([0, 32, 64], abs=4), "first, middle and last frame"
    assert shown["cast"].shape[0] == Proof.cast_height
    before = shown["crop"][:, : Proof.film_width]
    assert before.shape[:2] == (480, 640)
    left, inside = before[200, 20].mean(), before[300, 400].mean()
    assert inside == pytest.approx(2 * 30, abs=4), "the still at 1.2 s, inside the subtitle"
    assert left == pytest.approx(0.35 * 60, abs=6), "what the crop leaves out is dimmed"
    assert "decoded_frames" not in folder.counters, "the film is not opened again"
    assert folder.counters["decoded_clip_frames"] == 33


def test_proof_is_deterministic(tmp_path: Path, row: dict) -> None:
    contents = []
    for name in ("one", "two"):
        folder = scratch(tmp_path, name)
        made = Proof().worker()(row, folder)["proof"]
        folder.commit()
        contents.append([folder.open(p["image"]).read_bytes() for p in made])
    assert contents[0] == contents[1]


def test_proof_of_a_sequence_without_subjects_or_text(tmp_path: Path, row: dict) -> None:
    made = Proof().worker()({**row, "subjects": [], "overlays": [], "boxes": None}, scratch(tmp_path, "p"))
    assert [p["kind"] for p in made["proof"]] == ["strip", "crop"]


def test_boxes_are_drawn_where_the_subject_is(tmp_path: Path, row: dict) -> None:
    picture = np.zeros((96, 128, 3), np.uint8)
    box = {"x": 36.0, "y": 28.0, "width": 40.0, "height": 40.0, "subject_id": "q-p00"}
    crop = (16, 8, 128, 96)
    drawn = pictures.draw_boxes(picture, [box], row["subjects"], crop)
    ys, xs = np.nonzero(drawn[40:, :].any(axis=2))
    assert (xs.min(), xs.max()) == pytest.approx((20, 60), abs=2)
    assert ys.max() + 40 == pytest.approx(60, abs=2)
    assert pictures.map_box(box, crop) == pytest.approx((20 / 128, 20 / 96, 40 / 128, 40 / 96))


def test_busiest_frame_prefers_subjects_then_size_then_the_first() -> None:
    def box(k: int, subject: str | None, side: float) -> dict:
        return {"k": k, "subject_id": subject, "width": side, "height": side}

    assert busiest_frame([]) is None
    assert busiest_frame([box(1, "a", 5), box(2, "a", 9), box(3, None, 50)]) == 2
    assert busiest_frame([box(1, "a", 50), box(2, "a", 5), box(2, "b", 5)]) == 2
    assert busiest_frame([box(4, "a", 5), box(2, "a", 5)]) == 2


def text(kind: str, start: float, end: float) -> dict:
    return {"kind": kind, "start_s": start, "end_s": end}


def test_telling_spans_are_subtitles_longest_first(row: dict) -> None:
    overlays = [text("logo", 0, 2.4), text("subtitle", 0, 0.4), text("subtitle", 1, 2)]
    assert telling_spans({**row, "overlays": overlays}) == [(1, 2), (0, 0.4)]
    assert telling_spans({**row, "overlays": overlays[:1]}) == [(0, 2.4)]
    assert telling_spans({**row, "overlays": [text("scene_text", 0, 1)]}) == [(0.0, 2.4)]


def test_telling_still_lies_in_a_subtitle_if_one_does(row: dict) -> None:
    assert telling_still(row)["time_s"] == 1.2
    assert telling_still({**row, "overlays": [text("subtitle", 1.3, 1.5)]})["time_s"] == 0


def test_cut_outs_stay_inside_the_picture() -> None:
    picture = np.zeros((96, 128, 3), np.uint8)
    for box in (
        (-0.2, -0.2, 0.5, 0.5),
        (0.95, 0.95, 0.5, 0.5),
        (0.5, 0.5, 0.001, 0.001),
        (1.2, 1.2, 0.1, 0.1),
    ):
        assert pictures.cut_out(picture, box, 64).shape[0] == 64
