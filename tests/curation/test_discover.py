import os

import pytest

from curation.discover import NothingFound, discover
from curation.engine.stage import BadInput
from curation.stages.ingest import Identify
from tests.support import scratch


def paths(*sources):
    return [row["path"] for row in discover([str(s) for s in sources], "free")]


def test_files_folders_and_patterns_give_each_file_once(tmp_path):
    for name in ("b.mp4", "a [1] 'x'.mkv", "sub/c.txt", ".hidden.mp4", "sub/.git/d.mp4", "new\nline.mp4"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    names = ["a [1] 'x'.mkv", "b.mp4", "new\nline.mp4", "sub/c.txt"]
    everything = [str(tmp_path / name) for name in names]
    assert paths(tmp_path) == everything
    assert paths(tmp_path, tmp_path / "b.mp4") == everything
    assert paths(tmp_path / "*.mp4") == [str(tmp_path / "b.mp4"), str(tmp_path / "new\nline.mp4")]
    assert paths(tmp_path / "a [1] 'x'.mkv") == everything[:1]


def test_link_loops_end_and_broken_links_are_still_listed(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "film.mp4").touch()
    (tmp_path / "in" / "up").symlink_to(tmp_path)
    (tmp_path / "self.mp4").symlink_to(tmp_path / "self.mp4")
    assert paths(tmp_path) == [str(tmp_path / "in" / "film.mp4"), str(tmp_path / "self.mp4")]
    assert paths(tmp_path / "self.mp4") == [str(tmp_path / "self.mp4")]


def test_names_that_are_no_text_are_written_and_told_of(tmp_path):
    with open(os.fsencode(tmp_path) + b"/caf\xe9.mp4", "wb") as file:
        file.write(b"x")
    (name,) = paths(tmp_path)
    assert name == f"{tmp_path}/caf\\xe9.mp4"
    with pytest.raises(BadInput, match="its name is not UTF-8; rename it") as raised:
        Identify().worker()({"path": name}, scratch(tmp_path / "work"))
    assert raised.value.reason == "bad_name"


def test_a_source_without_files_is_named(tmp_path):
    with pytest.raises(NothingFound, match="nothing-here"):
        paths(tmp_path / "nothing-here")


def test_urls_go_through_fsspec():
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/films/a.mp4", b"x")
    memory.pipe("/films/b.mp4", b"x")
    assert paths("memory://films") == ["memory:///films/a.mp4", "memory:///films/b.mp4"]
    assert paths("memory://films/a*") == ["memory:///films/a.mp4"]


def test_a_folder_that_cannot_be_listed_is_told_of(tmp_path, monkeypatch):
    (tmp_path / "locked").mkdir()
    (tmp_path / "film.mp4").touch()
    scandir = os.scandir

    def refuse(path="."):
        if os.fspath(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    locked = str(tmp_path / "locked")
    assert paths(tmp_path) == [str(tmp_path / "film.mp4"), locked]
    with pytest.raises(BadInput, match="Permission denied; check permissions") as raised:
        Identify().worker()({"path": locked}, scratch(tmp_path / "work"))
    assert raised.value.reason == "unreadable"


def test_a_circle_of_links_is_told_of_without_its_path(tmp_path):
    (tmp_path / "self.mp4").symlink_to(tmp_path / "self.mp4")
    with pytest.raises(BadInput, match="the links lead in a circle") as raised:
        Identify().worker()({"path": str(tmp_path / "self.mp4")}, scratch(tmp_path / "work"))
    assert str(tmp_path) not in raised.value.detail


def test_what_would_be_read_without_an_end_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "zeros.mp4").symlink_to("/dev/zero")
    for path in paths(tmp_path):
        with pytest.raises(BadInput, match="a pipe, socket or device, not a file"):
            Identify().worker()({"path": path}, scratch(tmp_path / "work"))
