"""Every bad file is refused by name in one line; every odd one is understood."""

from __future__ import annotations

import numpy as np
import pytest

from curation import rows
from curation.discover import discover
from curation.engine.runner import run
from curation.engine.stage import FAILED as STATUS_FAILED
from curation.engine.stage import KEPT, REJECTED, BadInput, plan
from curation.engine.store import Store
from curation.stages.ingest import Identify, Ingest
from curation.stages.same_film import SameFilm
from curation.stages.scan import Scan, ToFilms, ToSegments
from curation.stages.titles import Titles
from curation.video.decode import decode_span, to_bgr
from curation.video.probe import probe
from tests import odd_inputs
from tests.footage import film, pictures
from tests.odd_inputs import FAILED, SOUND, corrupt_packets, rotated


@pytest.mark.parametrize("name", FAILED)
def test_bad_input_is_refused_by_name(name, tmp_path):
    odd = FAILED[name]
    path = odd.make(tmp_path)
    with pytest.raises(BadInput) as caught:
        probe(str(path))
    assert caught.value.reason == odd.reason
    assert len(caught.value.detail.splitlines()) == 1
    assert path.name in caught.value.detail


@pytest.mark.parametrize("name", SOUND)
def test_odd_input_is_understood(name, tmp_path):
    odd = SOUND[name]
    path = odd.make(tmp_path)
    stream, segments, notes = probe(str(path))
    for column, value in odd.facts.items():
        wanted = pytest.approx(value, rel=1e-3) if isinstance(value, float) else value
        assert stream[column] == wanted, column
    if odd.note:
        assert [n for n in notes if odd.note in n]
    assert segments[0]["start_pts"] == stream["first_pts"]
    assert segments[-1]["end_pts"] is None
    if odd.num_frames:
        frames = list(decode_span(str(path), stream, stream["first_pts"], None))
        assert len(frames) == odd.num_frames == stream["num_packets"]
        assert to_bgr(frames[0], stream).shape == (stream["height"], stream["width"], 3)


@pytest.mark.parametrize("quarter", [1, 2, 3])
def test_rotation_puts_the_picture_upright(quarter, tmp_path):
    path = rotated(quarter)(tmp_path)
    stream, _, _ = probe(str(path))
    frame = next(decode_span(str(path), stream, stream["first_pts"], None))
    wanted = np.rot90(next(pictures(1)), -quarter)  # the flag says: turn clockwise
    assert np.abs(to_bgr(frame, stream).astype(int) - wanted).mean() < 6


def test_corrupt_packets_are_really_corrupt(tmp_path):
    path = corrupt_packets(tmp_path)
    whole = film(tmp_path / "whole.mp4", count=120, gop_size=24)
    stream, _, _ = probe(str(path))
    sound, _, _ = probe(str(whole))
    assert stream["num_packets"] == sound["num_packets"] == 120
    good = [f.to_ndarray(format="gray") for f in decode_span(str(whole), sound, 0, None)]
    errors, bad = [], []
    for frame in decode_span(str(path), stream, 0, None, on_error=errors.append):
        bad.append(frame.to_ndarray(format="gray"))
    assert len(bad) >= 100
    spoilt = sum(np.abs(a.astype(int) - b).mean() > 1 for a, b in zip(good, bad, strict=False))
    assert errors or spoilt
    assert np.abs(good[0].astype(int) - bad[0]).mean() < 0.5


def ingest(folder, tmp_path):
    """Discover and ingest a folder: rows by path."""
    steps = plan([Identify(), SameFilm(), Ingest()], rows.SOURCE)
    found = discover([str(folder)], "CC0-1.0")
    outcome = run(steps, found, Store(tmp_path / ".work"), on_ray=False)
    assert sorted(r["path"] for r in outcome.tables["film"]) == [r["path"] for r in found]
    return {r["path"]: r for r in outcome.tables["film"]}


def test_bad_films_do_not_stop_the_others(tmp_path):
    """All of them in one folder: every file is accounted for, each with its own outcome."""
    folder = tmp_path / "films"
    folder.mkdir()
    wanted = {}
    for name, odd in (FAILED | SOUND).items():
        try:
            path = odd.make(folder)
        except pytest.skip.Exception:
            continue
        if name != "folder as film":  # an empty folder holds no film
            status = KEPT if odd.outcome == "ok" else STATUS_FAILED
            wanted[str(path)] = (status, odd.reason)
            if name == "symlink loop":
                wanted[str(path.with_name("loop_b.mp4"))] = (status, odd.reason)
    found = ingest(folder, tmp_path)
    assert {path: (row["status"], row["reason"]) for path, row in found.items()} == wanted


def test_copies_are_one_film(tmp_path):
    folder = tmp_path / "films"
    folder.mkdir()
    odd_inputs.folder_with_copies(folder)
    found = {path.rsplit("/", 1)[1]: row for path, row in ingest(folder, tmp_path).items()}
    assert found["a.mp4"]["status"] == found["c other encode.mkv"]["status"] == KEPT
    copy = found["b copy.mp4"]
    assert (copy["status"], copy["reason"]) == (REJECTED, "same_film")
    assert copy["detail"].endswith("a.mp4")


def test_a_copy_of_an_unusable_file_has_failed_like_it(tmp_path):
    folder = tmp_path / "films"
    folder.mkdir()
    for name in ("a.mp4", "b.mp4"):
        (folder / name).write_bytes(b"%PDF-1.7 no film at all" * 99)
    steps = plan([Identify(), SameFilm(), Ingest(), ToSegments(), Scan(), Titles(), ToFilms()], rows.SOURCE)
    found = run(steps, discover([str(folder)], "CC0-1.0"), Store(tmp_path / ".work"), on_ray=False)
    first, copy = found.tables["film"]
    assert (first["status"], first["stage"]) == (STATUS_FAILED, "ingest")
    assert [copy[c] for c in ("status", "stage", "reason")] == [
        first[c] for c in ("status", "stage", "reason")
    ]
    assert copy["detail"] == f"{first['detail']} (the same bytes as {folder / 'a.mp4'})"


def test_folder_that_holds_itself_ends(tmp_path):
    folder = tmp_path / "films"
    folder.mkdir()
    odd_inputs.folder_with_loop(folder)
    assert [row["status"] for row in ingest(folder, tmp_path).values()] == [KEPT]
