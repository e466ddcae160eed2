"""`memento eval` as a user meets it: reports of whole, partial and broken submissions; a line per mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmark.controls import rearranged
from benchmark.presets import preset
from benchmark.report.results import read_results
from benchmark.stories import load_stories
from benchmark.submission import probed, read_folder
from pipelines.cli import app
from pipelines.eval_output import output_folder
from tests.benchmark import made
from tests.pipelines.benchmark_files import script, write_scripts, write_videos


@pytest.fixture(autouse=True)
def no_weights(tmp_path, monkeypatch):
    """Encoders of the machine that runs the tests must not decide them; a wide terminal does not wrap."""
    for name in ("MEMENTO_WEIGHTS", "HF_HOME", "HF_HUB_CACHE", "TORCH_HOME", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "nothing"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)


def memento(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def evaluated(*arguments, code=0):
    result = memento("eval", *arguments)
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def two(tmp_path):
    """Two methods on two stories."""
    scripts = write_scripts(tmp_path / "scripts", ("tale", "myth"))
    a = write_videos(tmp_path / "a", ("tale", "myth"))
    b = write_videos(tmp_path / "b", ("tale", "myth"), seed=50)
    return scripts, a, b


def test_two_methods_without_weights_end_in_a_report(two):
    scripts, a, b = two
    output = evaluated(f"ours={a}", f"theirs={b}", "--stories", scripts, "-o", "out")
    data = read_results("out")
    assert [method.name for method in data.compared()] == ["ours", "theirs"]
    assert data.preset == "memento"
    scored = {m.name: m.scores["cut_accuracy"].per_story["macro"] for m in data.compared()}
    assert all(set(values) == {"tale", "myth"} and None not in values.values() for values in scored.values())
    aesthetic = data.metric("aesthetic")
    assert aesthetic.reason.startswith("unavailable: weights missing")
    assert data.compared()[0].scores["aesthetic"].cells["macro"].value is None
    assert "ours: 6 of 6 shots of 2 stories; 6 of 6 videos decoded in this run" in output
    assert "Page: out/report.html" in output


def test_controls_are_kept_apart_and_move_as_they_must(two):
    scripts, a, b = two
    evaluated(f"ours={a}", f"theirs={b}", "--stories", scripts, "-o", "out")
    found = {method.name: method for method in read_results("out").methods if method.control}
    assert set(found) == {"ours, shuffled", "ours, reversed", "ours, frozen"}
    frozen = {name: s.cells["macro"].value for name, s in found["ours, frozen"].scores.items()}
    assert (frozen["freeze"], frozen["motion"], frozen["flicker"]) == (1.0, 0.0, 0.0)
    assert frozen["duration_s"] == pytest.approx(10 / 16)
    evaluated(f"ours={a}", "--stories", scripts, "-o", "bare", "--no-controls")
    assert not [method for method in read_results("bare").methods if method.control]


def test_run_again_it_decodes_nothing_and_says_the_same(two):
    scripts, a, _ = two
    evaluated(a, "--stories", scripts, "-o", "out")
    before = json.loads(Path("out/results.json").read_text())
    output = evaluated(a, "--stories", scripts, "-o", "out")
    after = json.loads(Path("out/results.json").read_text())
    assert "0 of 6 videos decoded in this run" in output
    for method in (*before["methods"], *after["methods"]):
        method.pop("work")
    assert before["methods"] == after["methods"]


def test_without_arguments_what_generate_left_is_evaluated(tmp_path):
    write_videos(tmp_path / "out" / "generate")
    (tmp_path / "out" / "generate" / "tale" / "story.json").write_text(json.dumps(script(rewritten=True)))
    (tmp_path / "out" / "generate" / "tale" / "story.mp4").write_bytes(b"the film of all shots")
    write_videos(tmp_path / "out" / "generate", template="earlier/1ab67d/{s:02d}_{h:02d}", seed=9)
    evaluated()
    data = read_results("out/eval/generated")
    (method,) = data.compared()
    assert (method.name, len(method.videos["tale"])) == ("generated", 3)
    assert data.choices["prompts"][0] == "rewritten"
    assert data.environment["prompts generated"] == "memento"
    assert not any("made from" in flag for row in data.fairness for flag in row.flags)
    assert [file for file, _ in method.ignored] == ["tale/story.mp4"]
    assert "earlier" not in evaluated("out/generate")  # the same method under the same name, and older takes
    assert [path.name for path in sorted(Path("out/eval").iterdir())] == ["features", "generated"]


def test_nothing_generated_is_one_line_with_the_command():
    output = evaluated(code=2)
    assert output.count("\n") == 1
    assert "run `make generate` first" in output


def test_broken_missing_and_further_files_are_a_line_each_and_the_rest_is_scored(tmp_path):
    scripts, a = write_scripts(tmp_path / "s", layout=(3, 3)), write_videos(tmp_path / "a", layout=(3, 3))
    (a / "tale" / "01_02.mp4").write_bytes(b"no video")
    (a / "tale" / "01_03.mp4").write_bytes(b"")
    (a / "tale" / "02_01.mp4").unlink()
    (a / "tale" / "07_01.mp4").write_bytes(b"more")
    made.video(a / "tale" / "02_02.mp4", made.moving(4, seed=9, size=(60, 90)))
    output = evaluated(a, "--stories", scripts, "-o", "out")
    assert "tale 01_02: a/tale/01_02.mp4" in output.replace(str(tmp_path) + "/", "")
    assert "tale 01_03" in output
    assert "a: tale 02_02: 4 frames where 10 are usual" in output
    assert "a: 3 of 6 shots of 1 story (tale: 3 of 6 missing: 01_02, 01_03, 02_01)" in output
    data = read_results("out")
    assert data.compared()[0].ignored == [["tale/07_01.mp4", "the script of tale has no shot 07_01"]]
    assert data.compared()[0].scores["motion"].coverage["units"][0] == 3


def test_nothing_that_can_be_scored_exits_with_1(tmp_path):
    scripts = write_scripts(tmp_path / "scripts")
    (tmp_path / "a" / "tale").mkdir(parents=True)
    output = evaluated("a", "--stories", scripts, code=1)
    assert "a: no shot found in a: no video below it" in output
    assert "nothing to score" in output
    assert not (tmp_path / "out").exists()


def test_a_layout_that_would_fit_is_named_and_works(tmp_path):
    scripts = write_scripts(tmp_path / "scripts")
    write_videos(tmp_path / "a", template="{i:03d}")
    told = "3 files fit the layout {story}/{index}.mp4: write a=a:storydiffusion"
    assert told in evaluated("a", "--stories", scripts, code=1)
    assert "a: 3 of 3 shots" in evaluated("a=a:storydiffusion", "--stories", scripts, "-o", "one")
    assert "a: 3 of 3 shots" in evaluated("a=a:{story}/{index}.mp4", "--stories", scripts, "-o", "two")


def test_ranges_of_one_file_are_shots(tmp_path):
    scripts = write_scripts(tmp_path / "scripts")
    made.video(tmp_path / "film.mp4", made.moving(24, seed=3, size=(60, 90)))
    entry = {"path": "film.mp4", "story": "tale", "shots": [[0, 8], [8, 16], [16, 24]]}
    (tmp_path / "ranges.json").write_text(json.dumps({"format": "memento-ranges/1", "videos": [entry]}))
    output = evaluated("holo=ranges.json", "--stories", scripts, "-o", "out")
    assert "holo: 3 of 3 shots of 1 story; 1 of 1 video decoded" in output
    assert read_results("out").compared()[0].scores["duration_s"].cells["macro"].value == 0.5


def test_stories_that_only_one_method_has_are_scored_and_left_out_of_comparisons(tmp_path):
    scripts = write_scripts(tmp_path / "scripts", ("tale", "myth", "saga"))
    write_videos(tmp_path / "a", ("tale", "myth"))
    write_videos(tmp_path / "b", ("tale",), seed=7)
    output = evaluated("a", "b", "--stories", scripts, "-o", "out")
    assert "1 of 3 stories has no video of any method and is left out: saga" in output
    assert "b: 3 of 6 shots of 2 stories (myth: 3 of 3 missing" in output
    (difference,) = [d for d in read_results("out").differences if d.metric == "motion"]
    assert difference.difference.stories == 1


def test_a_dry_run_counts_and_writes_nothing(two, tmp_path):
    scripts, a, b = two
    output = evaluated(a, b, "--stories", scripts, "-o", "out", "--dry-run")
    assert "viclip-b16" in output
    assert "120 frames" in output  # of CLIP L/14: every frame of twelve videos of ten
    assert not (tmp_path / "out" / "report.html").exists()


# -- one report never takes the place of another -------------------------------------------------


def test_reports_of_other_methods_lie_beside_each_other_and_share_what_was_decoded(two):
    scripts, a, b = two
    evaluated(f"ours={a}", "--stories", scripts)
    first = Path("out/eval/ours/results.json").read_bytes()
    output = evaluated(f"ours={a}", f"theirs={b}", "--stories", scripts)
    assert "ours: 6 of 6 shots of 2 stories; 0 of 6 videos decoded in this run" in output
    assert "Page: out/eval/ours-theirs/report.html" in output
    evaluated(f"ours={a}", "--stories", scripts, "--preset", "storymem")
    assert sorted(path.name for path in Path("out/eval").iterdir()) == [
        "features", "ours", "ours-storymem", "ours-theirs",
    ]  # fmt: skip
    assert Path("out/eval/ours/results.json").read_bytes() == first


def test_a_folder_with_a_report_of_other_methods_is_left_alone(two):
    scripts, a, b = two
    evaluated(f"ours={a}", "--stories", scripts, "-o", "out")
    before = Path("out/results.json").read_bytes()
    output = evaluated(f"theirs={b}", "--stories", scripts, "-o", "out", code=2)
    assert output.splitlines() == [
        "memento: out holds a report of ours: give this one another folder with -o, or remove that one first"
    ]
    output = evaluated(f"ours={b}", "--stories", scripts, "-o", "out", code=2)
    assert "out holds a report of other videos of ours" in output
    assert Path("out/results.json").read_bytes() == before
    evaluated(f"ours={a}", "--stories", Path(scripts) / "tale.json", "-o", "out")
    assert len(read_results("out").stories) == 1


@pytest.mark.parametrize(
    ("methods", "preset", "name"),
    [
        (["a"], "memento", "a"),
        (["a", "b c/d"], "ours", "a-b_c_d-ours"),
        ([".."], "memento", "report"),
    ],
)
def test_folders_are_named_by_methods(methods, preset, name):
    assert output_folder(methods, preset) == Path("out/eval") / name


def test_many_methods_and_one_called_features_still_have_a_folder_of_their_own():
    many = [output_folder([f"method {n}" for n in range(20)] + [last], "memento").name for last in "xy"]
    assert len(set(many)) == 2
    assert max(map(len, many)) < 80
    assert output_folder(["features"], "memento").name != "features"


# -- who is in which shot -------------------------------------------------------------------------


def write_map(path, cast, reviewer="AB", key="tale"):
    entry = {"characters": cast} | ({"reviewer": reviewer} if reviewer else {})
    others = {"saga": {"characters": {"Person A": ["01_01"]}}}
    path.write_text(json.dumps({"format": "memento-characters/1", "stories": {key: entry, **others}}))
    return path


def test_a_character_map_is_in_the_recipe_the_scores_and_the_fairness_sheet(two, tmp_path):
    scripts, a, _ = two
    evaluated(a, "--stories", scripts, "-o", "tags", "--no-controls")
    file = write_map(tmp_path / "characters.json", {"Rex": ["01_01", "02_01"], "Person B": ["01_02"]})
    options = ("--stories", scripts, "--no-controls", "--characters", file)
    output = evaluated(a, *options, "-o", "map")
    told = f"Characters: {file}: tags of the prompts (1), map reviewed by AB (1)"
    assert told in output
    assert f"{file}: lacks myth: there the tags of the prompts count" in output
    tags, mapped = read_results("tags"), read_results("map")
    assert tags.recipe != mapped.recipe
    by_story = {story.key: story for story in mapped.stories}
    assert [shot.characters for shot in by_story["tale"].shots] == [["Rex"], ["Person B"], ["Rex"]]
    assert by_story["myth"].shots[0].characters == ["Person A"]
    assert mapped.fairness[0].characters == "tags of the prompts (1); map reviewed by AB (1)"
    assert "map reviewed by AB (1)" in Path("map/report.html").read_text()
    assert "different recipes" in evaluated("diff", "tags", "map", code=2)
    across = evaluated("diff", "tags", "map", "--across-recipes")
    assert "who is in which shot differs in tale (tags of the prompts became map reviewed by AB)" in across
    assert told in evaluated(a, *options, "-o", "dry", "--dry-run")
    same = write_map(tmp_path / "other.json", {"Rex": ["01_01", "02_01"], "Person B": ["01_02"]}, "CD")
    evaluated(a, "--stories", scripts, "--no-controls", "--characters", same, "-o", "again")
    assert read_results("again").recipe == mapped.recipe  # who reviewed it decides no number


def test_a_map_beside_the_scripts_is_no_script_and_one_that_nobody_reviewed_is_told(two):
    scripts, a, _ = two
    file = write_map(Path(scripts) / "characters.json", {"Person A": ["01_01"]}, reviewer="")
    output = evaluated(a, "--stories", scripts, "-o", "out")
    assert f"{file}: a character map that is not used; to use it: --characters {file}" in output
    assert "2 stories" in output
    output = evaluated(a, "--stories", scripts, "-o", "out", "--characters", file)
    assert "nobody has put a name to tale: add a reviewer" in output


@pytest.mark.parametrize(
    ("cast", "key", "message"),
    [
        ({"Person A": ["09_09"]}, "tale", "tale, Person A: the script has no shot 09_09"),
        ({"Person A": "01_01"}, "tale", "give a list of shots"),
        ({"Person A": ["01_01"]}, "nobody", "it has none of the stories: tale"),
    ],
)
def test_a_map_that_cannot_be_used_is_a_line(cast, key, message, tmp_path):
    write_scripts(tmp_path / "scripts")
    write_videos(tmp_path / "a")
    file = write_map(tmp_path / "map.json", cast, key=key)
    output = evaluated("a", "--stories", "scripts", "--characters", file, code=2)
    assert message in output
    assert len(output.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no such folder"),
        (["a", "x=a", "x=a"], "two methods are called 'x'"),
        (["a", "--preset", "mementoo"], "did you mean 'memento'"),
        (["a", "--set", "crp=full"], "did you mean 'crop'"),
        (["a", "--set", "crop=round"], "crop cannot be 'round'"),
        (["a", "--set", "aesthetic_stride=x"], "write a whole number"),
        (["a", "--set", "strict_missing=maybe"], "write true or false"),
        (["a", "--stories", "none"], "--stories none: no such file or folder"),
        (["a", "--stories", "scripts", "--weights", "clip"], "write encoder=path"),
        (["a", "--stories", "scripts", "--weights", "clop=x"], "no encoder is called clop"),
        (["a", "--stories", "scripts", "--weights", "clip-b32=x"], "no file at x; correct the path"),
        (
            ["a", "--stories", "scripts", "--set", "prompts=rewritten"],
            "scripts given hold original prompts",
        ),
        (["a=a:{story}.mp4", "--stories", "scripts"], "is no layout"),
        (["scripts/tale.json", "--stories", "scripts"], "is no manifest"),
        (["a/tale/01_01.mp4"], "stbench ranges a/tale/01_01.mp4 proposes one"),
        (["a"], "no story scripts: give them with --stories"),
        (["diff", "a"], "give two folders of reports"),
        (["diff", "a", "scripts"], "a/results.json: cannot be read"),
    ],
)
def test_a_mistake_is_one_line(arguments, message, tmp_path):
    write_scripts(tmp_path / "scripts")
    write_videos(tmp_path / "a")
    result = memento("eval", *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_videos_that_are_no_shots_are_named_with_what_can_be_done(tmp_path):
    scripts = write_scripts(tmp_path / "scripts")
    write_videos(tmp_path / "a", template="scene_{s}")
    output = evaluated("a", "--stories", scripts, code=1)
    assert "its name is not that of a shot" in output
    assert "ranges.json" in output
    assert "NAME=FOLDER:{story}/shot_{index}.mp4" in output


def test_faults_of_scripts_that_are_not_scored_are_not_told(tmp_path):
    scripts = write_scripts(tmp_path / "scripts")
    other = script("elsewhere")
    del other["story_overview"]
    (tmp_path / "scripts" / "elsewhere.json").write_text(json.dumps(other))
    write_videos(tmp_path / "a")
    output = evaluated("a", "--stories", scripts, "-o", "out")
    assert "1 of 2 stories has no video of any method and is left out: elsewhere" in output
    assert "elsewhere.json: " not in output


@pytest.mark.slow
def test_a_file_with_the_wrong_hash_is_no_number_but_a_line(two, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    scripts, a, _ = two
    monkeypatch.setenv("MEMENTO_WEIGHTS", str(tmp_path / "weights"))
    (tmp_path / "weights" / "dinov2-b14").mkdir(parents=True)
    (tmp_path / "weights" / "dinov2-b14" / "dinov2_vitb14_pretrain.pth").write_bytes(b"something else")
    evaluated(a, "--stories", scripts, "-o", "out")
    reason = read_results("out").metric("subject_intra_shot_scene_level").reason
    assert reason.startswith("unavailable")
    assert "dinov2-b14" in reason


def test_diff_of_two_reports(two):
    scripts, a, b = two
    evaluated(f"x={a}", "--stories", scripts, "-o", "one")
    evaluated(f"x={b}", "--stories", scripts, "-o", "two")
    assert "6 videos of x changed" in evaluated("diff", "one", "two")
    assert evaluated("diff", "one", "one").endswith("numbers moved\nnothing else differs\n")
    evaluated(f"y={b}", "--stories", scripts, "-o", "stranger")
    output = evaluated("diff", "one", "stranger", code=2)
    assert "nothing compares: no method is in both reports; the first has x, the second y" in output
    assert len(output.strip().splitlines()) == 1
    evaluated(f"x={b}", "--stories", scripts, "-o", "other", "--preset", "ours")
    assert "--across-recipes" in evaluated("diff", "one", "other", code=2)
    assert "do not compare" in evaluated("diff", "one", "other", "--across-recipes")


# -- controls -----------------------------------------------------------------------------------


def test_shuffled_shots_of_a_single_story_leave_their_places(tmp_path):
    stories, _ = load_stories([write_scripts(tmp_path / "scripts", layout=(4, 4))])
    submission = probed(read_folder(write_videos(tmp_path / "a", layout=(4, 4)), stories), stories)
    controls = {control.method: control.clips["tale"] for control in rearranged(submission, stories)}
    own = submission.clips["tale"]
    shuffled, turned = controls["a, shuffled"], controls["a, reversed"]
    assert sorted(c.path for c in shuffled.values()) == sorted(c.path for c in own.values())
    assert not [shot for shot in own if shuffled[shot].path == own[shot].path]
    assert [turned[shot].path for shot in own] == [own[shot].path for shot in reversed(own)]
    again = {control.method: control.clips["tale"] for control in rearranged(submission, stories)}
    assert again == controls


def test_shuffled_shots_come_from_other_stories_where_there_are_some(tmp_path):
    keys = ("tale", "myth", "saga")
    stories, _ = load_stories([write_scripts(tmp_path / "scripts", keys)])
    submission = probed(read_folder(write_videos(tmp_path / "a", keys), stories), stories)
    shuffled = rearranged(submission, stories)[0]
    assert all(c.path.parent.name != key for key, shots in shuffled.clips.items() for c in shots.values())


def test_every_preset_is_scored(two):
    scripts, a, _ = two
    for name in ("storymem", "vbench", "holocine", "ours"):
        evaluated(a, "--stories", scripts, "-o", name, "--features", "features", "--preset", name)
        assert read_results(name).preset == preset(name).name
