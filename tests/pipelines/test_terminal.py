"""What is printed can be read and copied whole."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from pipelines.terminal import WIDE, make_console, narrowest, print_line, print_rows

ID = "f74f26b80fd76e4a-q592896-1090560"


def printed(columns, rows, width=80) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_rows(console, columns, rows)
    return console.file.getvalue()


def test_a_table_that_fits_is_a_table() -> None:
    text = printed(["sequence_id", "words"], [[ID, "as many words as there are " * 5]])
    assert ID in text
    assert "-- row" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_table_that_would_break_words_becomes_lines() -> None:
    columns = ["sequence_id", *(f"a_long_score_{n}" for n in range(5))]
    text = printed(columns, [[ID, *"12345"], [ID, *"67890"]])
    lines = text.splitlines()
    assert lines[0] == "-- row 1 --"
    assert lines[1] == f"sequence_id     {ID}"
    assert lines[8] == f"sequence_id     {ID}"
    assert "a_long_score_4  0" in lines
    assert "-- row" not in printed(columns, [[ID, *"12345"]], width=narrowest(columns, [[ID, *"12345"]]))


def test_text_is_text_whatever_is_in_it() -> None:
    text = printed(["a"], [["[bold]x[/] [Person A]"]])
    assert "[bold]x[/] [Person A]" in text


def test_a_line_is_never_broken() -> None:
    console = Console(file=io.StringIO(), width=20)
    print_line(console, "memento weights pull a_name_of_many_letters [x]")
    assert console.file.getvalue() == "memento weights pull a_name_of_many_letters [x]\n"


@pytest.mark.parametrize(("columns", "width"), [("", WIDE), ("80", 80)])
def test_without_a_terminal_lines_are_long_unless_columns_says_otherwise(columns, width, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert make_console().width == width
