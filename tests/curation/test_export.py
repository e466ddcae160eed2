"""The export stage: one decode, right frames in right files, pictures of the targets, and the proof."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from curation.engine.stage import BadInput
from curation.looks import look_size, read_looks
from curation.shots.signals import Signals
from curation.stages import export as export_module
from curation.stages.export import Export
from curation.stages.scan import scan
from curation.stages.shots import Shots, find_shots
from curation.timing import num_frames_16fps, source_of_output
from curation.video.decode import decode_span, fit_size
from curation.video.probe import probe
from tests.curation.tiny_film import scanned, sequence_row, shots_of, texture, write_film, write_interlaced
from tests.support import scratch, shared

SMALL = Export(height=96, width=160)


def export(row, tmp_path, stage=SMALL):
    row = scanned(row, scratch(tmp_path, "scan"))
    folder = scratch(tmp_path, "export")
    columns = stage.worker()(row, folder)
    folder.commit()
    return columns, folder


def pictures(folder, clip_file):
    with av.open(str(folder.open(clip_file["video"]))) as container:
        return [f.to_ndarray(format="rgb24").astype(float) for f in container.decode(video=0)]


@pytest.fixture
def film(tmp_path):
    """Shots of 40, 30, 12 and 50 frames at 24 fps."""
    return write_film(tmp_path / "film.mp4", shots_of([40, 30, 12, 50]))


SPANS = [(0, 40), (40, 70), (70, 82), (82, 132)]


def test_clips_hold_the_frames_of_their_shots(film, tmp_path):
    row = sequence_row(film, SPANS, context=(2,))
    columns, folder = export(row, tmp_path)
    stream = row["stream"]
    source = [f.to_ndarray(format="rgb24").astype(float) for f in decode_span(str(film), stream, 0, None)]
    clips = [c for c in row["clips"] if not c["is_context"]]
    assert [c["clip_index"] for c in columns["clip_files"]] == [0, 1, 3]
    for clip, made in zip(clips, columns["clip_files"], strict=True):
        count = num_frames_16fps(stream, clip["start_pts"], clip["end_pts"])
        assert made["num_frames"] == count
        assert count % 4 == 1
        pts = stream["first_pts"] + 512 * np.arange(clip["start_frame"], clip["end_frame"])
        shown = source_of_output(stream, clip["start_pts"], pts, count) + clip["start_frame"]
        stored = pictures(folder, made)
        assert len(stored) == count
        for k, i in enumerate(shown):
            assert np.abs(stored[k] - source[i]).mean() < 2.5
        assert made["clip_id"] == f"{row['sequence_id']}-c{clip['clip_index']:02d}"
        assert made["shot_id"] == clip["shot_id"]
        assert (made["fps"], made["height"], made["width"]) == (16.0, 96, 160)
        assert made["start_s"] == clip["start_s"]
        assert made["end_s"] == pytest.approx(clip["start_s"] + count / 16)
        data = folder.open(made["video"]).read_bytes()
        assert made["sha256"] == hashlib.sha256(data).hexdigest()


def test_the_film_is_decoded_once_and_everything_is_counted(film, tmp_path):
    row = sequence_row(film, SPANS[1:3])
    _, folder = export(row, tmp_path)
    counters = folder.counters
    assert counters["decoded_frames"] == 30 + 12
    assert counters["decoded_s"] == pytest.approx((30 + 12) / 24)
    assert counters["encoded_frames"] == counters["verified_frames"] == 17 + 5


def test_whole_length_is_kept_when_asked(film, tmp_path):
    row = sequence_row(film, [(0, 40)])
    columns, _ = export(row, tmp_path, Export(height=96, width=160, trim=False))
    assert columns["clip_files"][0]["num_frames"] == 27  # 40 / 24 * 16 = 26.7
    assert columns["clip_files"][0]["end_s"] == pytest.approx(40 / 24)


def test_target_pictures_are_the_exported_frames(film, tmp_path):
    row = sequence_row(film, SPANS, targets=[(0, 7), (3, 0)])
    columns, folder = export(row, tmp_path)
    for target, image in zip(row["recon_targets"], columns["recon_images"], strict=True):
        assert image["recon_id"] == target["recon_id"]
        picture = np.asarray(Image.open(folder.open(image["image"]))).astype(float)
        stored = pictures(folder, columns["clip_files"][target["clip_index"]])
        distances = [np.abs(frame - picture).mean() for frame in stored]
        assert int(np.argmin(distances)) == target["frame_in_clip_16fps"]
        assert min(distances) < 1.5


def test_looks_are_the_exported_pictures_four_a_second(film, tmp_path):
    row = sequence_row(film, SPANS, context=(2,))
    columns, folder = export(row, tmp_path, Export(height=96, width=160, look_tokens=15))
    seen = read_looks(folder.open(columns["looks"]))
    for made in columns["clip_files"]:
        stored = pictures(folder, made)
        mine = [look for look in seen if look.clip_index == made["clip_index"]]
        assert [look.frame for look in mine] == list(range(0, made["num_frames"], 4))
        for look in mine:
            picture = look.rgb_hwc_u8()
            assert picture.shape == (96, 160, 3)
            assert np.abs(picture - stored[look.frame]).mean() < 4


@pytest.mark.parametrize(
    ("clip", "tokens", "size"),
    [
        ((480, 832), 112, (256, 448)),
        ((832, 480), 112, (448, 256)),
        ((480, 480), 112, (320, 320)),
        ((96, 160), 112, (96, 160)),  # never larger than the clip
        ((32, 320), 4, (32, 128)),
        ((480, 832), 1, (32, 32)),
    ],
)
def test_looks_keep_the_shape_of_the_clip(clip, tokens, size):
    assert look_size(*clip, tokens) == size


def test_the_same_row_gives_the_same_bytes(film, tmp_path):
    row = sequence_row(film, SPANS, targets=[(1, 3)])
    digests = []
    for name in ("a", "b"):
        columns, folder = export(row, tmp_path / name)
        files = [c["video"] for c in columns["clip_files"]] + [r["image"] for r in columns["recon_images"]]
        files.append(columns["looks"])
        digests.append([hashlib.sha256(folder.open(f).read_bytes()).hexdigest() for f in files])
    assert digests[0] == digests[1]


def test_frames_of_a_transition_stay_outside(tmp_path):
    first, second = list(shots_of([30])), list(shots_of([30], seed=9))
    mix = [(first[-1] * (1 - k / 9.0) + second[0] * (k / 9.0)).astype(np.uint8) for k in range(1, 9)]
    film = write_film(tmp_path / "dissolve.mp4", [*first, *mix, *second])
    row = sequence_row(film, [(0, 30), (38, 68)])
    columns, folder = export(row, tmp_path)
    last = pictures(folder, columns["clip_files"][0])[-1].mean(axis=2)
    head = pictures(folder, columns["clip_files"][1])[0].mean(axis=2)
    assert np.abs(last - first[-1]).mean() < np.abs(last - mix[3]).mean()
    assert np.abs(head - second[0]).mean() < 3


@pytest.mark.parametrize(
    ("spans", "edge"),
    [([(0, 40), (39, 70)], "first"), ([(0, 40), (38, 70)], "first"), ([(10, 41)], "last")],
)
def test_a_frame_of_the_neighbouring_shot_fails_the_sequence(film, tmp_path, spans, edge):
    with pytest.raises(BadInput) as caught:
        export(sequence_row(film, spans[-1:]), tmp_path, Export(height=96, width=160, trim=False))
    assert caught.value.reason == "export_failed"
    assert f"{edge} frame belongs to the neighbouring shot" in caught.value.detail


@pytest.mark.parametrize(("span", "late", "edge"), [((40, 70), -1, "first"), ((0, 40), 1, "last")])
def test_a_decoder_that_is_one_frame_off_is_caught(film, tmp_path, monkeypatch, span, late, edge):
    """The proof compares what was encoded with what the scan saw on the other side of the cut."""

    def off_by_one(path, stream, start, end, **more):
        for frame in decode_span(path, stream, start + 512 * late, end + 512 * late, **more):
            frame.pts -= 512 * late
            yield frame

    row = sequence_row(film, [span])
    export(row, tmp_path / "right", Export(height=96, width=160, trim=False))
    monkeypatch.setattr(export_module, "decode_span", off_by_one)
    with pytest.raises(BadInput, match=f"its {edge} frame belongs to the neighbouring shot"):
        export(row, tmp_path / "off", Export(height=96, width=160, trim=False))


def test_a_film_that_lost_frames_since_the_scan_fails_the_sequence(film, tmp_path):
    row = sequence_row(film, SPANS)
    row["clips"][-1]["end_frame"] += 20
    row["clips"][-1]["end_pts"] += 20 * 512
    with pytest.raises(BadInput, match="50 frames for a shot of 70"):
        export(row, tmp_path)
    row["clips"] = [row["clips"][-1]]
    for name, frames in (("start_frame", 200), ("end_frame", 240)):
        row["clips"][0][name] = frames
        row["clips"][0][name.replace("frame", "pts")] = frames * 512
    with pytest.raises(BadInput, match="export_failed"):
        export(row, tmp_path)


def test_targets_that_are_not_in_the_clip_are_a_bug_not_bad_input(film, tmp_path):
    with pytest.raises(ValueError, match="beyond the 25 frames"):
        export(sequence_row(film, SPANS, targets=[(0, 25)]), tmp_path)
    with pytest.raises(ValueError, match="clip 2 is not exported"):
        export(sequence_row(film, SPANS, context=(2,), targets=[(2, 0)]), tmp_path)


def test_odd_sizes_are_refused_at_once():
    with pytest.raises(ValueError, match="must be even"):
        Export(height=479)


def test_interlaced_and_turned_film_goes_through(tmp_path):
    film = write_film(tmp_path / "i.mkv", shots_of([30, 30]), options={"x264-params": "tff=1", "crf": "8"})
    row = sequence_row(film, [(0, 30), (30, 60)])
    assert row["stream"]["interlaced"]
    row["stream"] = {**row["stream"], "rotation": 90, "width": 96, "height": 160}
    row.update(crop_width=96, crop_height=160)
    columns, _ = export(row, tmp_path)
    assert [c["num_frames"] for c in columns["clip_files"]] == [17, 17]


def found_spans(film) -> list[tuple[int, int]]:
    """Shots of a film as the line finds them, scanned in segments."""
    stream, segments, _ = probe(str(film), segment_s=1.0)
    signals = Signals.concat([scan(str(film), stream, segment)[0] for segment in segments])
    return [(s.start, s.end) for s in find_shots(signals, stream["fps"], Shots())]


@pytest.mark.parametrize("order", ["tff", "bff"])
def test_cuts_between_fields_lose_a_frame_and_no_sequence(order, tmp_path):
    """Cuts after 61, 136 and 217 fields: two inside frames 30 and 108, one before frame 68."""
    film = write_interlaced(tmp_path / "i.mkv", shots_of([61, 75, 81, 83]), order)
    spans = found_spans(film)
    assert spans == [(0, 30), (31, 68), (68, 108), (109, 150)]
    columns, folder = export(sequence_row(film, spans), tmp_path)
    for seed, made in enumerate(columns["clip_files"]):
        for picture in pictures(folder, made):
            unlike = picture[..., 1] - texture(seed)
            assert np.abs(unlike - np.median(unlike)).mean() < 4
    if order == "bff":  # the first field of frame 30, which deinterlacing keeps, is the shot's before
        with pytest.raises(BadInput, match="first frame belongs"):
            export(sequence_row(film, [(0, 30), (30, 68)]), tmp_path / "whole")


def test_real_cuts_of_big_buck_bunny(tmp_path):
    """Hand-checked cuts pass the proof; a span that is one frame early does not."""
    film = shared("films/bbb_486p_first300s.mp4")
    cuts = json.loads(Path(shared("annotations/bbb_first300s.cuts.json")).read_text())
    cuts = [c for c in cuts["hard_cuts_first_frame"] if 2832 <= c <= 3046]
    row = sequence_row(film, list(itertools.pairwise(cuts)), crop=(16, 0, 832, 480))
    columns, _ = export(row, tmp_path, Export())
    assert [c["num_frames"] for c in columns["clip_files"]] == [45, 41, 53]
    row = sequence_row(film, [(cuts[1] - 1, cuts[2])], crop=(16, 0, 832, 480))
    assert fit_size(row["stream"], 864) == (486, 864)
    with pytest.raises(BadInput, match="first frame belongs"):
        export(row, tmp_path / "early", Export())
