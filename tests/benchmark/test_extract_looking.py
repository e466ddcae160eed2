from __future__ import annotations

import json
import os

import pytest

from benchmark.extraction import looking
from benchmark.extraction.looking import FILE, look_at
from benchmark.submission import probed, read_folder
from tests.benchmark import made

STORIES = {"tale": made.story("tale", (3,))}


@pytest.fixture
def root(tmp_path):
    for number in (1, 2):
        made.video(tmp_path / f"m/tale/01_0{number}.mp4", made.moving(5, seed=number))
    (tmp_path / "m/tale/01_03.mp4").write_bytes(b"gone")
    return tmp_path


@pytest.fixture
def looked(monkeypatch):
    names = []
    look = looking.video_facts
    monkeypatch.setattr(looking, "video_facts", lambda path: (names.append(path.name), look(path))[1])
    return names


def test_facts_are_those_of_probing_and_files_are_opened_once(root, looked):
    found = read_folder(root / "m", STORIES)
    first = look_at(found, STORIES, root / "features")
    assert first == probed(found, STORIES)
    assert sorted(looked) == ["01_01.mp4", "01_02.mp4", "01_03.mp4"]
    assert len(first.faults) == 1
    looked.clear()
    assert look_at(found, STORIES, root / "features") == first
    assert looked == ["01_03.mp4"]  # perhaps it is whole now


def test_a_file_that_changed_is_looked_at_again(root, looked):
    found = read_folder(root / "m", STORIES)
    before = look_at(found, STORIES, root / "features")
    looked.clear()
    made.video(root / "m/tale/01_01.mp4", made.moving(9, seed=7))
    os.utime(root / "m/tale/01_02.mp4", ns=(1, 1))
    after = look_at(found, STORIES, root / "features")
    assert sorted(looked) == ["01_01.mp4", "01_02.mp4", "01_03.mp4"]
    (a, b), (c, d) = before.clips["tale"].values(), after.clips["tale"].values()
    assert (a.num_frames, c.num_frames) == (5, 9)
    assert b == d


@pytest.mark.parametrize("content", ["", "[]", '{"x": 1}', '{"x": {"state": [1, 2], "facts": {}}}'])
def test_a_damaged_memory_is_forgotten(root, content):
    found = read_folder(root / "m", STORIES)
    (root / "features").mkdir()
    (root / "features" / FILE).write_text(content)
    assert look_at(found, STORIES, root / "features") == probed(found, STORIES)
    assert len(json.loads((root / "features" / FILE).read_text())) == 2
