"""What `memento eval` says of folders of other names, whole films, and another recipe than before."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmark.ranges import propose_ranges, read_ranges
from benchmark.stories import load_stories, near_stories
from pipelines.cli import app
from tests.benchmark import made
from tests.pipelines.benchmark_files import write_scripts, write_videos


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """No weights of the machine; a wide terminal does not wrap."""
    for name in ("MEMENTO_WEIGHTS", "HF_HOME", "HF_HUB_CACHE", "TORCH_HOME", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "nothing"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)


def memento(*arguments, code=0):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return result.output


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("memento_robinson", ["robinson"]),
        ("0_Robinson", ["robinson"]),
        ("robinsn", ["robinson"]),
        ("black_cat_v2", ["black_cat", "cat"]),
        ("holidays", []),
    ],
)
def test_stories_that_a_folder_may_mean(name, near, tmp_path):
    stories, _ = load_stories([write_scripts(tmp_path / "s", ("robinson", "cat", "black_cat"))])
    assert near_stories(name, stories) == near


def test_a_folder_of_another_name_is_told_with_the_story_that_may_be_meant(tmp_path):
    scripts = write_scripts(tmp_path / "scripts", ("robinson", "harry"))
    write_videos(tmp_path / "a", ("memento_robinson",))
    told = "memento_robinson (3 videos) bears no story's name; if it is robinson, rename the folder"
    assert told in memento("eval", "a", "--stories", scripts, code=1)
    # The folder of one story alone, named wrongly.
    assert told in memento("eval", "x=a/memento_robinson", "--stories", scripts, code=1)
    # Beside a folder that is found it is told too.
    write_videos(tmp_path / "a", ("harry",))
    assert f"note: a: {told}" in memento("eval", "a", "--stories", scripts, "--no-controls")
    shutil.rmtree(tmp_path / "a")
    write_videos(tmp_path / "a", ("holidays",))
    assert "a story's folder bears its name (harry, robinson)" in memento(
        "eval", "a", "--stories", scripts, code=1
    )


def test_a_report_that_is_replaced_under_another_recipe_is_said(tmp_path):
    scripts = write_scripts(tmp_path / "scripts")
    write_videos(tmp_path / "a")
    arguments = ["eval", "a", "--stories", scripts, "--no-controls"]
    assert "is replaced" not in memento(*arguments)
    assert "is replaced" not in memento(*arguments)
    memento("stbench", "characters", scripts, "-o", "map.json")
    Path("out/eval/a").rename("monday")
    assert "is replaced" not in memento(*arguments, "--characters", "map.json")
    told = memento("eval", "diff", "monday", "out/eval/a")  # where map and tags say the same, numbers compare
    assert "tags of the prompts became map that nobody reviewed, which says the same" in told
    value = json.loads(Path("map.json").read_text())
    next(iter(value["stories"].values()))["characters"] = {"Rex": ["01_01"]}
    Path("map.json").write_text(json.dumps(value))
    (line,) = [
        line for line in memento(*arguments, "--characters", "map.json").splitlines() if "is replaced" in line
    ]
    assert line.startswith("note: the report that was in out/eval/a is replaced, and does not compare")
    assert "became map that nobody reviewed" in line


# -- films of several shots ----------------------------------------------------------------------


def test_proposed_ranges_are_equal_parts_moved_to_cuts_that_are_near():
    found, told = propose_ranges([81, 164, 500], 324, 4, 8)
    assert found == [(0, 81), (81, 164), (164, 243), (243, 324)]
    assert told == "3 cuts were found where 3 are needed: equal parts, 2 of whose borders lie at a cut"
    assert propose_ranges([], 30, 3, 8)[0] == [(0, 10), (10, 20), (20, 30)]
    assert propose_ranges([5], 7, 1, 8)[0] == [(0, 7)]


def test_as_many_cuts_as_are_needed_count_where_the_parts_are_not_equal():
    found, told = propose_ranges([20, 50, 60], 324, 4, 8)
    assert found == [(0, 20), (20, 50), (50, 60), (60, 324)]
    assert "though they do not lie at equal parts" in told


def test_borders_never_meet_and_too_short_a_film_is_refused():
    for cuts in ([1, 2], [3, 4, 5, 6], [2]):
        found, _ = propose_ranges(cuts, 9, 3, 100)
        assert found[0][0] == 0
        assert found[-1][1] == 9
        assert all(a < b for a, b in found)
    with pytest.raises(ValueError, match="2 frames for 3 shots"):
        propose_ranges([], 2, 3, 8)


def film(tmp_path, lengths=(8, 8, 8)):
    frames = [p for n, count in enumerate(lengths) for p in made.moving(count, seed=9 * n + 3, size=(60, 90))]
    return made.video(tmp_path / "my_tale_final.mp4", frames)


def test_a_whole_film_becomes_a_manifest_that_says_it_is_a_proposal(tmp_path):
    scripts = write_scripts(tmp_path / "scripts", ("tale", "myth"))
    film(tmp_path)
    text = memento("stbench", "ranges", "my_tale_final.mp4", "--stories", scripts, "-o", "r/ranges.json")
    assert "r/ranges.json: tale: a proposal, not a measurement" in text
    value = json.loads((tmp_path / "r" / "ranges.json").read_text())
    (entry,) = value["videos"]
    assert entry["path"] == "../my_tale_final.mp4"
    assert entry["shots"] == [[0, 8], [8, 16], [16, 24]]
    assert "scene" not in entry
    text = memento("eval", "x=r/ranges.json", "--stories", scripts, "--no-controls")
    assert "a proposal of ranges that nobody has checked" in text
    assert "x: 3 of 3 shots of 1 story" in text
    del entry["proposal"]
    (tmp_path / "r" / "ranges.json").write_text(json.dumps(value))
    assert "nobody has checked" not in memento(
        "eval", "x=r/ranges.json", "--stories", scripts, "--no-controls"
    )


def test_a_film_of_a_scene_and_one_whose_name_says_nothing(tmp_path):
    scripts = write_scripts(tmp_path / "scripts", ("tale", "myth"))
    film(tmp_path).rename(tmp_path / "x.mp4")
    told = memento("stbench", "ranges", "x.mp4", "--stories", scripts, code=2)
    assert "its name does not say whose film it is: add --story NAME; there are myth, tale" in told
    assert "no such story; there are tale" in memento(
        "stbench", "ranges", "x.mp4", "--stories", scripts, "--story", "tales", code=2
    )
    text = memento("stbench", "ranges", "x.mp4", "--stories", scripts, "--story", "tale", "--scene", 1)
    (tmp_path / "ranges.json").write_text(text)
    stories, _ = load_stories([scripts])
    found = read_ranges(tmp_path / "ranges.json", stories)
    assert [shot.stem for shot in found.clips["tale"]] == ["01_01", "01_02"]
    told = memento(
        "stbench", "ranges", "x.mp4", "--stories", scripts, "--story", "tale", "--scene", 9, code=2
    )
    assert "the script of tale has no such scene" in told
    assert "no such file" in memento("stbench", "ranges", "y.mp4", "--stories", scripts, code=2)
