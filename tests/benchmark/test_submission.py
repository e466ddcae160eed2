from __future__ import annotations

import json
import shutil

import pytest

from benchmark.ranges import ranges_of_cuts, read_ranges
from benchmark.stories import ShotKey
from benchmark.submission import SubmissionError, probed, read_folder, stories_of
from tests.benchmark import made
from tests.support import shared

STORIES = {"tale": made.story("tale", aliases=frozenset({"0_tale"})), "saga": made.story("saga", (1,))}


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def test_the_folder_of_memento_and_storymem(tmp_path):
    names = ["01_01.mp4", "01_02.mp4", "1_2.mp4", "02_07.mp4", "01_03_full.mp4", "motion_frames.mp4"]
    names += ["tale.mp4", "01_01_tensor.pt", ".01_03.mp4"]
    root = touch(tmp_path / "ours", *(f"0_tale/{n}" for n in names), "odyssey/01_01.mp4", "notes.txt")
    found = read_folder(root, STORIES)
    assert found.method == "ours"
    assert {k: [s.stem for s in v] for k, v in found.clips.items()} == {"tale": ["01_01", "01_02"]}
    assert found.missing_lines() == [
        "saga: 1 of 1 missing: 01_01",
        "tale: 3 of 5 missing: 01_03, 02_01, 02_02",
    ]
    assert dict(found.ignored) == {
        "0_tale/01_03_full.mp4": "its name is not that of a shot",
        "0_tale/02_07.mp4": "the script of tale has no shot 02_07",
        "0_tale/1_2.mp4": "the same shot as 01_02.mp4",
        "0_tale/motion_frames.mp4": "its name is not that of a shot",
        "0_tale/tale.mp4": "its name is not that of a shot",
        "odyssey/01_01.mp4": "no story of the benchmark is called odyssey",
    }
    assert found.faults == ("0_tale/1_2.mp4 is the same shot as 01_02.mp4, which is used: remove one",)


def test_the_folder_of_one_story(tmp_path):
    root = touch(tmp_path / "tale", "01_01.mp4", "02_02.mp4")
    assert list(read_folder(root, STORIES).clips["tale"]) == [ShotKey(1, 1), ShotKey(2, 2)]


@pytest.mark.parametrize(
    ("layout", "names", "stems"),
    [
        ("storydiffusion", ["000.mp4", "003.mp4"], ["01_01", "02_01"]),
        ("ic-lora", ["1.mp4", "4.mp4"], ["01_01", "02_01"]),
        ("ic-lora", ["2.mp4", "6.mp4"], ["01_02"]),
        ("{story}/scene{scene}/shot-{shot}.webm", ["scene1/shot-2.webm"], ["01_02"]),
    ],
)
def test_other_layouts(tmp_path, layout, names, stems):
    root = touch(tmp_path, *(f"tale/{name}" for name in names))
    assert [s.stem for s in read_folder(root, STORIES, layout=layout).clips["tale"]] == stems


def test_what_cannot_be_read_at_all(tmp_path):
    with pytest.raises(SubmissionError, match="no such folder"):
        read_folder(tmp_path / "none", STORIES)
    with pytest.raises(SubmissionError, match="is no layout"):
        read_folder(tmp_path, STORIES, layout="{story}.mp4")


def test_facts_of_files(tmp_path):
    made.video(tmp_path / "tale/01_01.mp4", made.moving(9))
    made.video(tmp_path / "tale/01_02.mp4", made.moving(1), fps=15)
    shutil.copy(tmp_path / "tale/01_01.mp4", tmp_path / "tale/02_01.mp4")
    data = (tmp_path / "tale/01_01.mp4").read_bytes()
    (tmp_path / "tale/02_02.mp4").write_bytes(data[: len(data) // 2])
    (tmp_path / "tale/01_03.mp4").write_text("no video")
    found = probed(read_folder(tmp_path, STORIES), STORIES)
    assert [s.stem for s in found.clips["tale"]] == ["01_01", "02_01"]
    first, copy = found.clips["tale"].values()
    facts = first.facts
    assert (facts.frames, facts.fps, facts.height, facts.width, facts.codec) == (9, 16.0, 90, 160, "h264")
    assert facts.duration_s == pytest.approx(9 / 16)
    assert 0 < facts.bitrate <= 8 * len(data) / facts.duration_s
    assert facts.matrix == "untagged"
    assert first.id == copy.id == facts.sha256
    assert [line.split(": ")[0] for line in found.faults] == ["tale 01_02", "tale 01_03", "tale 02_02"]
    assert "a single frame, not a film" in found.faults[0]
    assert all("\n" not in line for line in found.faults)
    assert found.missing_lines()[1] == "tale: 3 of 5 missing: 01_02, 01_03, 02_02"
    assert stories_of([found]) == ["tale"]


def manifest(tmp_path, *videos):
    path = tmp_path / "ranges.json"
    path.write_text(json.dumps({"format": "memento-ranges/1", "method": "HoloCine", "videos": list(videos)}))
    return path


def test_declared_ranges(tmp_path):
    made.video(tmp_path / "s1.mp4", made.moving(30))
    scene = {"path": "s1.mp4", "story": "tale", "scene": 1}
    found = read_ranges(manifest(tmp_path, {**scene, "shots": [[0, 11], [11, 20], [20, 30]]}), STORIES)
    found = probed(found, STORIES)
    assert found.method == "HoloCine"
    assert [clip.num_frames for clip in found.clips["tale"].values()] == [11, 9, 10]
    assert len({clip.id for clip in found.clips["tale"].values()}) == 3
    same = read_ranges(manifest(tmp_path, {**scene, "cuts": [11, 20]}), STORIES)
    assert [(c.start, c.end) for c in same.clips["tale"].values()] == [(0, 11), (11, 20), (20, 30)]
    late = read_ranges(manifest(tmp_path, {**scene, "shots": [[0, 11], [11, 20], [20, 31]]}), STORIES)
    late = probed(late, STORIES)
    assert [s.stem for s in late.clips["tale"]] == ["01_01", "01_02"]
    assert "frames 20 to 31 are declared" in late.faults[0]


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        ({"shots": [[0, 5], [5, 9]]}, "2 shots are declared, but tale, scene 1, has 3"),
        ({"shots": [[0, 5], [4, 9], [9, 12]]}, "begins before the one before it ends"),
        ({"shots": [[0, 5], [5, 5], [9, 12]]}, "is empty or negative"),
        ({"shots": 3}, "needs `shots`"),
        ({"shots": [[0, 5]], "scene": 9}, "has no scene 9"),
        ({"shots": [[0, 5]], "story": "none"}, "no story of the benchmark is called 'none'"),
        ({"cuts": [3, 7]}, "no such file"),
        ({"path": None}, "needs `path`"),
    ],
)
def test_bad_ranges_are_one_line(tmp_path, entry, line):
    entry = {"path": "s1.mp4", "story": "tale", "scene": 1, **entry}
    found = read_ranges(manifest(tmp_path, entry), STORIES)
    assert len(found.faults) == 1
    assert line in found.faults[0]
    assert found.num_clips == 0
    assert len(found.missing) == 6


def test_cuts_must_ascend(tmp_path):
    assert ranges_of_cuts([], 5) == [(0, 5)]
    with pytest.raises(ValueError, match="do not ascend"):
        ranges_of_cuts([4, 4], 9)
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(SubmissionError, match="memento-ranges/1"):
        read_ranges(tmp_path / "bad.json", STORIES)


def test_published_videos():
    stories = {"robinson": made.story("robinson", (3, 3, 3, 3))}
    found = read_folder(shared("stories/memento_robinson"), stories)
    assert found.num_clips == 0  # the folder's name is no story's
    assert {reason for _, reason in found.ignored} == {"its name is not that of a shot"}


def test_older_takes_below_a_story_are_passed_over(tmp_path):
    stories = {"tale": made.story("tale", (2,))}
    for name in ("01_01.mp4", "earlier/1ab67d/01_01.mp4", "earlier/1ab67d/01_02.mp4", "other/01_01.mp4"):
        made.video(tmp_path / "tale" / name, made.moving(3, size=(30, 60)))
    for root in (tmp_path, tmp_path / "tale"):  # a folder of stories, and a story's own
        found = read_folder(root, stories)
        assert [shot.stem for shot in found.clips["tale"]] == ["01_01"]
        assert [name.rpartition("tale/")[2] for name, _ in found.ignored] == ["other/01_01.mp4"]
