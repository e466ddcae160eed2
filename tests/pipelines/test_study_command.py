"""`memento study` as a user meets it."""

from __future__ import annotations

import json
import re

import pytest
from typer.testing import CliRunner

from benchmark.study.answers import FORMAT, checksum
from benchmark.study.design import CRITERIA, Film
from benchmark.study.kit import study_id, token
from pipelines.cli import app
from tests.pipelines.benchmark_files import write_scripts, write_videos


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("MEMENTO_WEIGHTS", str(tmp_path / "nothing"))


def memento(*arguments, code=0):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return result.output


KEYS = ("tale", "myth", "saga")


@pytest.fixture
def study(tmp_path):
    write_scripts(tmp_path / "scripts", KEYS)
    write_videos(tmp_path / "a", KEYS)
    write_videos(tmp_path / "b", KEYS, seed=30)
    text = memento("study", "make", "a", "b", "--stories", "scripts", "-o", "study", "--raters", 4)
    assert "6 films, 4 raters, 3 comparisons for each" in text
    return tmp_path / "study"


def answer_all(study, rater, winner):
    key = json.loads((study / "key.json").read_text())
    answers = []
    for number, trial in enumerate(key["sessions"][rater - 1]):
        films = {
            s: token(key["secret"], Film(method=trial[s][0], story=trial[s][1])) for s in ("left", "right")
        }
        side = "left" if trial["left"][0] == winner else "right"
        answers.append({"trial": number, **films, **dict.fromkeys(CRITERIA, side), "ms": 9000})
    name = study_id(key)
    value = {"format": FORMAT, "study": name, "rater": rater, "answers": answers}
    value["check"] = checksum(name, rater, answers)
    (study / "answers" / f"{rater}.json").write_text(json.dumps(value))


def test_from_videos_to_win_and_lose(study):
    for rater in (1, 2, 3):
        answer_all(study, rater, "a")
    answer_all(study, 4, "b")
    text = memento("study", "read", study / "answers", "--key", study / "key.json", "-o", "numbers.json")
    assert "a against b: 12 answers on each criterion, 3 stories, 4 raters" in text
    assert "75.0 [" in text
    found = json.loads((study.parent / "numbers.json").read_text())["verdicts"]
    assert [v["win"]["value"] for v in found] == [0.75] * 3
    assert [v["lose"]["value"] for v in found] == [0.25] * 3
    assert "fewer than 5 stories or raters" in text


def test_a_study_of_one_story_and_one_rater_counts_in_the_singular(tmp_path):
    write_scripts(tmp_path / "scripts")
    write_videos(tmp_path / "a")
    write_videos(tmp_path / "b", seed=30)
    text = memento("study", "make", "a", "b", "--stories", "scripts", "-o", "study", "--raters", 1)
    assert "2 films, 1 rater, 1 comparison for each" in text
    assert "and the number 1 (index.html#rater=1 fills it in)" in text
    answer_all(tmp_path / "study", 1, "a")
    text = memento("study", "read", tmp_path / "study" / "answers", "--key", tmp_path / "study" / "key.json")
    assert "a against b: 1 answer on each criterion, 1 story, 1 rater" in text
    assert not re.search(r"\b1 (answers|stories|raters|films|comparisons|files)\b", text)


def test_partial_is_offered_and_says_what_is_not_shown_and_how_far_it_is(tmp_path):
    write_scripts(tmp_path / "scripts", ("tale", "elsewhere"))
    lacking = json.loads((tmp_path / "scripts" / "elsewhere.json").read_text())
    del lacking["story_overview"]
    (tmp_path / "scripts" / "elsewhere.json").write_text(json.dumps(lacking))
    write_videos(tmp_path / "a")
    write_videos(tmp_path / "b", seed=30)
    (tmp_path / "b" / "tale" / "02_01.mp4").unlink()
    arguments = ["study", "make", "a", "b", "--stories", "scripts", "-o", "study"]
    assert "--partial shows the shots that every method has: of 1 story" in memento(*arguments, code=2)
    text = memento(*arguments, "--partial")
    assert text.startswith("encoding film 1 of 2\n")
    assert "note: tale: 2 of 3 shots are shown, those that every method has; missing: b 02_01" in text
    assert "elsewhere.json" not in text


def test_metrics_of_an_evaluation_are_set_beside_what_people_say(study):
    for rater in (1, 2):
        answer_all(study, rater, "a")
    memento("eval", "a", "b", "--stories", "scripts", "-o", "report", "--no-controls")
    text = memento(
        "study", "read", study / "answers", "--key", study / "key.json", "--results", "report/results.json"
    )
    assert "Metrics and people" in text
    assert "motion" in text
    memento("eval", "x=a", "y=b", "--stories", "scripts", "-o", "other", "--no-controls")
    text = memento("study", "read", study / "answers", "--key", study / "key.json", "--results", "other")
    assert "other: has no method a, b, but x, y: evaluate under the names of the study" in text


def test_files_that_cannot_be_used_are_a_line_each(study):
    answer_all(study, 1, "a")
    (study / "answers" / "half.json").write_text('{"format": "memento')
    text = memento("study", "read", study / "answers", "--key", study / "key.json")
    assert "note: half.json: not used: cannot be read as JSON" in text
    (study / "answers" / "1.json").unlink()
    text = memento("study", "read", study / "answers", "--key", study / "key.json", code=2)
    assert "no answer can be used" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["make", "a", "-o", "s", "--stories", "scripts"], "at least two methods"),
        (["make", "a", "b", "-o", "s", "--stories", "scripts", "--reference", "c"], "there are a, b"),
        (["make", "a", "empty", "-o", "s", "--stories", "scripts"], "empty: no shot found"),
        (["make", "a", "b", "-o", "taken", "--stories", "scripts"], "not empty and no study"),
        (["make", "a", "nowhere", "-o", "s"], "nowhere: no such folder"),
        (["read", "a", "--key", "none.json"], "none.json: cannot be read as a study's key"),
    ],
)
def test_a_mistake_is_one_line(arguments, message, tmp_path):
    write_scripts(tmp_path / "scripts")
    write_videos(tmp_path / "a")
    write_videos(tmp_path / "b", seed=3)
    (tmp_path / "empty").mkdir()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.doc").touch()
    text = memento("study", *arguments, code=2)
    assert message in text
    assert len(text.strip().splitlines()) == 1
