"""Identity by content without reading twice, and ingest that is the same for every copy."""

from __future__ import annotations

import hashlib
import os

import fsspec
import pytest

from curation import ids
from curation.engine.stage import BadInput
from curation.stages import ingest
from curation.stages.ingest import Identify, Ingest
from tests.footage import film
from tests.odd_inputs import truncated_index_first
from tests.support import scratch


@pytest.fixture
def reads(monkeypatch):
    """Paths whose bytes were hashed."""
    seen = []
    real = ingest._hash
    monkeypatch.setattr(ingest, "_hash", lambda path: seen.append(path) or real(path))
    return seen


def settled(path, data: bytes):
    """Write a file that has not changed for a while."""
    path.write_bytes(data)
    os.utime(path, (1_600_000_000, 1_600_000_000))
    return str(path)


def test_identity_is_the_hash_of_the_bytes(tmp_path):
    path = settled(tmp_path / "a b'\n\".mp4", b"film" * 1000)
    row = Identify().worker()({"path": path}, scratch(tmp_path))
    sha256 = hashlib.sha256(b"film" * 1000).hexdigest()
    assert row == {"film_id": ids.film_id(sha256), "sha256": sha256, "size_bytes": 4000}


def test_an_unchanged_file_is_not_read_again(tmp_path, reads):
    path = settled(tmp_path / "film.mp4", b"film")
    (tmp_path / ".work").mkdir()
    work = Identify().worker()
    first, second = (work({"path": path}, scratch(tmp_path)) for _ in range(2))
    assert first == second
    assert reads == [path]


@pytest.mark.parametrize("change", ["content", "time", "replaced"])
def test_a_changed_file_is_read_again(change, tmp_path, reads):
    path = settled(tmp_path / "film.mp4", b"film")
    (tmp_path / ".work").mkdir()
    work = Identify().worker()
    work({"path": path}, scratch(tmp_path))
    if change == "content":
        settled(tmp_path / "film.mp4", b"other film")
    elif change == "time":
        os.utime(path, (1_600_000_001, 1_600_000_001))
    else:
        settled(tmp_path / "new.mp4", b"milf")
        os.replace(tmp_path / "new.mp4", path)
    row = work({"path": path}, scratch(tmp_path))
    assert len(reads) == 2
    assert row["sha256"] == hashlib.sha256((tmp_path / "film.mp4").read_bytes()).hexdigest()


def test_a_file_just_written_is_not_trusted(tmp_path, reads):
    path = tmp_path / "film.mp4"
    path.write_bytes(b"film")
    work = Identify().worker()
    for _ in range(2):
        work({"path": str(path)}, scratch(tmp_path))
    assert len(reads) == 2


def test_a_url_is_hashed_through_fsspec(tmp_path):
    with fsspec.open("memory://bucket/film.mp4", "wb") as file:
        file.write(b"film")
    row = Identify().worker()({"path": "memory://bucket/film.mp4"}, scratch(tmp_path))
    assert row["sha256"] == hashlib.sha256(b"film").hexdigest()
    assert row["size_bytes"] == 4


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.touch(), "empty_file"),
        (lambda path: path.mkdir(), "not_a_video"),
        (lambda path: None, "not_found"),
        (lambda path: path.symlink_to(path), "unreadable"),
    ],
)
def test_what_has_no_bytes_is_refused(make, reason, tmp_path):
    path = tmp_path / "film.mp4"
    make(path)
    with pytest.raises(BadInput) as caught:
        Identify().worker()({"path": str(path)}, scratch(tmp_path))
    assert caught.value.reason == reason


def test_a_url_is_probed_like_the_file(tmp_path):
    path = film(tmp_path / "film.mp4", count=36)
    with fsspec.open("memory://bucket/copy.mp4", "wb") as file:
        file.write(path.read_bytes())
    work = Ingest(segment_s=0.5).worker()
    here = work({"film_id": "f", "path": str(path)}, scratch(tmp_path))
    there = work({"film_id": "f", "path": "memory://bucket/copy.mp4"}, scratch(tmp_path))
    assert here == there
    assert set(here) == set(Ingest.writes.names)


def test_a_refusal_serves_every_copy(tmp_path):
    path = truncated_index_first(tmp_path)
    with pytest.raises(BadInput) as caught:
        Ingest().worker()({"film_id": "f", "path": str(path)}, scratch(tmp_path))
    assert caught.value.reason == "truncated"
    assert str(tmp_path) not in caught.value.detail


@pytest.mark.parametrize("setting", ["segment_s", "min_segments"])
def test_segments_have_a_length(setting):
    with pytest.raises(ValueError, match=rf"ingest\.{setting}"):
        Ingest(**{setting: 0})
