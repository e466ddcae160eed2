"""What a report prints: what could be computed first, and nothing that means nothing."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from benchmark.report.console import blocks, print_report, unavailable
from benchmark.report.data import report_data
from benchmark.report.layout import computed, table, tables
from benchmark.report.tables import latex, markdown
from tests.benchmark import evaluations, made

STORIES = {f"s{i}": made.story(f"s{i}", (3, 2) if i else (3,)) for i in range(7)}
METHODS = {"near": {"spread": 0.3}, "far": {"spread": 0.9, "fps": 15.0}, "gaps": {"spread": 0.5}}


@pytest.fixture(scope="module")
def data():
    return report_data(evaluations.evaluation(STORIES, METHODS), pictures=False)


def test_the_console_fits_its_width(data):
    from rich.console import Console

    for width in (70, 100, 200):
        console = Console(width=width, file=io.StringIO(), record=True)
        print_report(data, console)
        text = console.export_text()
        assert max(map(len, text.splitlines())) <= width
        assert "reported by Memento" in " ".join(text.split())
        assert "\u2026" not in text
    assert len(list(blocks(table(data), 400))) == 1


def printed(data, width=100):
    from rich.console import Console

    console = Console(width=width, file=io.StringIO(), record=True)
    print_report(data, console)
    return console.export_text()


def test_without_weights_the_console_starts_with_numbers_and_tells_the_rest_in_a_line():
    data = report_data(evaluations.evaluation(STORIES, {"a": {}}, weights=False), pictures=False)
    text = printed(data)
    assert text.index("Weight-free numbers") < text.index("Without a number")
    assert "Preset memento" not in text
    assert "reported by" not in text
    assert " - " not in text
    (line,) = [
        line for line in text.splitlines() if line.startswith("Without a number: 7 columns (Aesthetic;")
    ]
    assert line.count("memento weights pull") == 1
    assert set(line.partition("weights pull ")[2].split()) == {
        "viclip-b16", "clip-b32", "clip-l14", "dinov2-b14",
    }  # fmt: skip
    assert line == unavailable(data)


def test_a_damaged_file_is_told_before_what_only_has_to_be_fetched():
    data = report_data(evaluations.evaluation(STORIES, {"a": {}}, weights=False), pictures=False)
    damaged = "dinov2-b14: /w/dinov2.pth is damaged; remove it and run: memento weights pull dinov2-b14"
    encoders = [replace(e, missing=damaged) if e.name == "dinov2-b14" else e for e in data.encoders]
    line = unavailable(replace(data, encoders=encoders))
    assert damaged in line
    assert line.endswith("bring them with: memento weights pull viclip-b16 clip-b32 clip-l14")


def test_columns_that_were_computed_come_first_and_reported_rows_stay_beside_them(data):
    lacking = [
        replace(metric, reason="unavailable: weights missing")
        if "viclip" in " ".join(metric.needs)
        else metric
        for metric in data.metrics
    ]
    partly = replace(data, metrics=lacking)
    main, free = computed(partly)
    assert [column.metric.name for column in main.columns] == [
        "aesthetic", "background", "subject_intra_shot_scene_level",
    ]  # fmt: skip
    assert main.groups == [("Aesthetic", 1), ("Background consistency", 1), ("Subject consistency", 1)]
    memento = next(values for name, values in main.reported[0].rows if name == "Memento")
    assert memento == [0.4977, 0.9805, 0.8578]
    assert [len(row.entries) for row in main.rows] == [3, 3, 3]
    assert len(free.columns) == 10
    assert unavailable(data) == ""


def test_a_dash_bears_the_letter_of_its_note():
    every = [f"{key}/{shot.key.stem}" for key, story in STORIES.items() for shot in story.shots]
    data = report_data(evaluations.evaluation(STORIES, {"a": {}, "b": {"absent": every}}), pictures=False)
    text = " ".join(printed(data, 200).split())
    assert "- (a) - (a)" in text
    assert "(a) b: it has no shot: all columns" in text
    assert "| b | - (a) | - (a) |" in markdown(data)
    assert r"- (a) b: it has no shot: all columns" in markdown(data).replace("\\", "")


def test_one_story_has_neither_intervals_nor_a_best(data):
    one = report_data(
        evaluations.evaluation({"s1": STORIES["s1"]}, {"near": {"spread": 0.3}, "far": {"spread": 0.9}}),
        pictures=False,
    )
    assert {entry.rank for each in tables(one) for row in each.rows for entry in row.entries} == {0}
    assert one.ranks == []
    assert one.warnings[-1].startswith("1 story: intervals, ranks and a best in bold need several")
    text = printed(one)
    assert "Preset memento, 1 story" in text
    assert "95 %" not in text
    assert "bold" not in latex(one)
    assert r"\textbf" not in latex(one)
    assert "**" not in markdown(one)
    assert "### Preset memento: 1 story, recipe" in markdown(one)
    assert {e.rank for row in table(data).rows for e in row.entries} == {0, 1, 2}
