"""The command line as a user meets it: help everywhere, and one line for every mistake."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from typer.testing import CliRunner

from curation.config import SettingsError
from pipelines.cli import app
from pipelines.refilter_command import parse_grid
from tests.support import REPOSITORY


def memento(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


COMMANDS = ["curate", "query", "refilter", "doctor", "weights"]


def test_help_names_every_command_and_the_readme_does_too():
    text = memento("--help").output
    readme = (REPOSITORY / "README.md").read_text() + (REPOSITORY / "docs" / "tiers.md").read_text()
    for command in COMMANDS:
        assert command in text
        assert f"memento {command}" in readme
        assert memento(command, "--help").exit_code == 0


def test_every_command_has_few_options():
    for command in COMMANDS[:4]:
        options = re.findall(r"^\W*--[a-z]", memento(command, "--help").output, re.MULTILINE)
        assert len(options) <= 10, command


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["curate", "no/such/folder"], "no/such/folder: no such file or folder"),
        (["curate", "dmo", "--config", REPOSITORY / "datasets.yaml"], "did you mean 'demo'"),
        (["curate", "demo", "--preset", "paper-tabel"], "did you mean 'paper-table'"),
        (["curate", "demo", "--set", "filters.max_shak=1"], "did you mean 'max_shake'"),
        (["curate", "demo", "--set", "fliters.max_shake=1"], "did you mean 'filters'"),
        (["curate", "demo", "--set", "max_shake=1"], "expected stage.setting=value"),
        (["query", "overview", "-o", "nowhere"], "nowhere: no published dataset"),
        (["query", "-o", "nowhere"], "nowhere: no published dataset"),
        (
            ["query", "SELECT", "sequence_id", "FROM", "clips"],
            'put the query in quotes: memento query "SELECT',
        ),
        (
            ["query", "mine.sql"],
            "mine.sql: No such file or directory; give a file with a query, or the query",
        ),
        (["query", "--cvs", "overview"], "no such option: --cvs; there are --output (-o) and --csv"),
        (["curate", "demo", "--set", "filters.max_shake=[1"], "--set filters.max_shake=[1: line 1, column 1"),
        (["refilter", "-o", "nowhere"], "nowhere: no published dataset"),
        (["weights", "pull", "yolox_nanno"], "did you mean 'yolox_nano'"),
    ],
)
def test_a_mistake_is_one_line(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = memento(*arguments, *(["-o", tmp_path / "out", "--loop"] if arguments[0] == "curate" else []))
    assert result.exit_code == 2
    assert message in result.output
    assert len(result.output.strip().splitlines()) <= 2
    assert "Traceback" not in result.output


def test_an_output_folder_of_something_else_is_refused(tmp_path):
    film = tmp_path / "film.mp4"
    film.write_bytes(b"")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.doc").touch()
    result = memento("curate", film, "-o", tmp_path / "taken", "--loop")
    assert result.exit_code == 2
    assert "not empty and not made by this tool" in result.output
    result = memento("curate", film, "-o", film, "--loop")
    assert result.exit_code == 2
    assert f"{film}: Not a directory; mend it or choose another place (--output)" in result.output
    other = tmp_path / "set"
    assert memento("curate", film, "-o", other, "--loop").exit_code == 0
    (tmp_path / "more.mp4").write_bytes(b"")
    result = memento("curate", tmp_path / "more.mp4", "-o", other, "--loop")
    assert result.exit_code == 2
    assert "holds the dataset 'film', not 'more'" in result.output


def test_a_fault_of_the_input_comes_first_and_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for more in ([], ["--explain"]):
        result = memento("curate", "/nope", *more)
        assert result.output.splitlines() == [
            "memento: /nope: no such file or folder, and no file matches it as a pattern"
        ]


def test_query_without_a_dataset_named_lists_its_own_queries(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = memento("query")
    assert result.exit_code == 0
    assert "overview" in result.output


def test_query_takes_a_comment_for_sql_and_reads_files(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "pipelines.query_command.main", lambda sql, output, as_csv: asked.append((sql, as_csv))
    )
    (tmp_path / "mine.sql").write_text("-- all\nSELECT 1")
    for words in (["-- one"], ["-- all\nSELECT 1", "--csv"], [tmp_path / "mine.sql"], []):
        assert memento("query", *words).exit_code == 0
    assert asked == [
        ("-- one", False),
        ("-- all\nSELECT 1", True),
        ("-- all\nSELECT 1", False),
        (None, False),
    ]


def test_a_file_that_is_no_text_is_no_query(tmp_path):
    (tmp_path / "mine.sql").write_bytes(b"\xff\xfe\x00")
    result = memento("query", tmp_path / "mine.sql")
    assert (result.exit_code, result.output) == (2, f"memento: {tmp_path / 'mine.sql'}: no text in UTF-8\n")


def test_a_mistake_in_datasets_yaml_is_one_line_with_its_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "datasets.yaml").write_text("version: 1\ndatasets:\n  mine:\n    films: *.mkv\n")
    result = memento("curate", "mine")
    assert result.exit_code == 2
    fault = "line 4, column 13: a value that begins with * needs quotes (here: films: *.mkv)"
    assert result.output.splitlines() == [f"memento: datasets.yaml: {fault}"]


def test_doctor_knows_every_part():
    output = memento("doctor").output
    for part in ("decode", "shot boundaries", "text detection", "subject detection", "tracking", "captions"):
        assert part in output


@pytest.mark.parametrize("width", ["80", "140", ""])
def test_no_name_is_cut_at_any_width_or_through_a_pipe(width, monkeypatch):
    from pipelines.weights_command import models

    monkeypatch.setenv("COLUMNS", width)
    doctor, listed = memento("doctor").output, memento("weights", "list").output
    assert "\u2026" not in doctor + listed, "an ellipsis"
    for model in models():
        assert f" {model.name} " in listed
        assert model.repository in listed
    for command in ("memento weights pull yolox_nano", "memento weights pull mobilefacenet"):
        lines = [line.strip() for line in doctor.splitlines()]
        assert command in lines or command.rpartition(" ")[2] in str(here()), "a line of its own"


def here():
    from curation import weights

    return [name for name in weights.TABLE if weights.find(name)]


def test_help_has_a_line_for_each_command_in_groups(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = [line.strip("\u2502 ") for line in memento("--help").output.splitlines()]
    groups = [line.split()[1] for line in lines if line.startswith("\u256d\u2500") and "Options" not in line]
    assert groups == ["Dataset", "Model", "Benchmark", "This"]
    for command in ("curate", "query", "refilter", "train", "generate", "story", "eval", "study", "doctor"):
        told = [line for line in lines if line.startswith(f"{command} ")]
        assert len(told) == 1, command
        assert told[0].endswith("."), f"{told[0]}: more than a line"


def test_the_settings_page_is_true():
    from pipelines.settings_page import page

    assert (REPOSITORY / "docs" / "settings.md").read_text() == page()


def test_the_settings_page_names_nothing_that_only_the_code_knows():
    import sys

    from pipelines.curate import STEPS
    from pipelines.settings_page import page

    text = page()
    assert "see `" not in text
    assert not re.search(r"`(curation|pipelines)\.", text)
    assert not re.search(r"\b(None|True|False)\b", text)
    classes = {
        n for step in STEPS for n, v in vars(sys.modules[step.__module__]).items() if isinstance(v, type)
    }
    found = {name for name in classes if re.search(r"[a-z][A-Z]", name) and re.search(rf"\b{name}\b", text)}
    assert found == set()


def test_every_setting_has_its_sentence():
    from pipelines.curate import STEPS
    from pipelines.settings_page import lines

    settings = [(step.name, *line) for step in STEPS for line in lines(step)]
    assert len(settings) > 50
    assert [f"{step}.{name}" for step, name, _, sentence in settings if not sentence] == []
    assert [f"{step}.{name}" for step, name, _, sentence in settings if "see `" in sentence] == []
    taken = Counter((step, sentence) for step, name, _, sentence in settings)
    assert [place for place, number in taken.items() if number > 1] == [], "a sentence of its own"


def test_nested_settings_are_listed_with_their_dotted_names_and_defaults_as_yaml():
    from pipelines.settings_page import page

    text = page()
    assert "| `text.` |  | when text counts as drawn over the film. |" in text
    assert "| `text.pad` | `0.12` |" in text
    for line in ("| `text_model` | `''` |", "| `find_marks` | `true` |", "| `groups` | `[person, animal,"):
        assert line in text


def test_a_grid_takes_its_values_as_they_look():
    assert parse_grid("filters.min_sharpness=5,40,1e3,null") == (
        "filters.min_sharpness",
        [5, 40, 1000.0, None],
    )
    with pytest.raises(SettingsError, match=r"^--grid filters\.min_sharpness=5:40: .*separated by commas"):
        parse_grid("filters.min_sharpness=5:40")
