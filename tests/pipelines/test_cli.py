"""The command line as a user meets it: help everywhere, and one line for every mistake."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
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
        options = re.findall(r"--[a-z]", memento(command, "--help").output)
        assert len(options) <= 9, command


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
    other = tmp_path / "set"
    assert memento("curate", film, "-o", other, "--loop").exit_code == 0
    (tmp_path / "more.mp4").write_bytes(b"")
    result = memento("curate", tmp_path / "more.mp4", "-o", other, "--loop")
    assert result.exit_code == 2
    assert "holds the dataset 'film', not 'more'" in result.output


def test_doctor_knows_every_part():
    output = memento("doctor").output
    for part in ("decode", "shot boundaries", "text detection", "subject detection", "tracking", "captions"):
        assert part in output


def test_the_settings_page_is_true():
    from pipelines.settings_page import page

    assert (REPOSITORY / "docs" / "settings.md").read_text() == page()


def test_every_setting_has_its_sentence():
    from pipelines.curate import STEPS
    from pipelines.settings_page import lines

    settings = [(step.name, *line) for step in STEPS for line in lines(step)]
    assert len(settings) > 50
    assert [f"{step}.{name}" for step, name, _, sentence in settings if not sentence] == []
