"""What is in bold and what is compared: enough stories, videos that move, and the same shots."""

from __future__ import annotations

import pytest

from benchmark.features import FeatureTable
from benchmark.presets import all_readings
from benchmark.report.console import print_report
from benchmark.report.data import report_data
from benchmark.report.layout import table, tables
from benchmark.report.page import page
from benchmark.report.shared import shared_scores
from benchmark.report.tables import latex, markdown
from benchmark.scoring import score
from benchmark.statistics import RANKED
from benchmark.submission import missing_shots
from tests.benchmark import evaluations, made

STORIES = {f"s{i}": made.story(f"s{i}", (3, 2)) for i in range(RANKED)}
STILL = {
    "slides": {"spread": 0.1, "motion": 0.5, "freeze": 0.88},
    "moves": {"spread": 0.3},
    "wild": {"spread": 0.9},
}


def evaluated(stories, methods, **of):
    return report_data(evaluations.evaluation(stories, methods, **of), pictures=False)


def entries(data, part="preset"):
    """(method, metric) -> entry of a table."""
    one = table(data, part)
    return {
        (row.method, column.metric.name): entry
        for row in one.rows
        for column, entry in zip(one.columns, row.entries, strict=True)
    }


def printed(data):
    from rich.console import Console

    console = Console(record=True, width=120, file=open("/dev/null", "w"))  # noqa: SIM115
    print_report(data, console)
    return console.export_text()


def test_a_method_that_stands_still_is_not_in_bold_where_that_helps_but_is_named():
    data = evaluated(STORIES, STILL)
    found = entries(data)
    for name in ("inter_shot_viclip_adjacent", "background"):
        slides, moves = found["slides", name], found["moves", name]
        assert slides.cell.value > moves.cell.value
        assert (slides.rank, slides.mark) == (0, "hardly moves")
        assert (moves.rank, moves.mark) == (1, "")
    (told,) = [flag for flag in data.flags if flag.startswith("slides is best in")]
    assert "88 % of its frame steps are frozen: it may win by freezing" in told
    assert "Subject, inter-shot" in told
    # What the text says is not easier to show standing still.
    assert not any(entry.mark for (_, name), entry in found.items() if name.startswith("semantic"))
    assert sorted({found[m, "semantic_shot"].rank for m in STILL}) in ([0, 1, 2], [1, 2])


def test_flicker_repeated_frames_and_cuts_are_columns_that_freezing_improves():
    calm = dict.fromkeys(("flicker", "boundary_difference"), 0.5)
    evaluation = evaluations.evaluation(STORIES, {"slides": STILL["slides"], "moves": {}, "also": {}})
    slides = evaluation.methods[0]
    arrays = {
        key: array * calm.get(key[2].removeprefix("stat_"), 1.0) for key, array in slides.store.arrays.items()
    }
    store = FeatureTable(arrays, slides.store.frames, slides.store.rates)
    scores = score(all_readings(evaluation.preset), STORIES, store, recipe=evaluation.recipe)
    changed = type(slides)(submission=slides.submission, scores=scores, store=store)
    evaluation = type(evaluation)(**{**vars(evaluation), "methods": (changed, *evaluation.methods[1:])})
    data = report_data(evaluation, pictures=False)
    found = entries(data, "weight-free")
    assert found["slides", "flicker"].mark == "hardly moves"
    assert found["slides", "flicker"].rank == 0
    assert any("best in" in flag and "Flicker" in flag for flag in data.flags)


def test_console_page_markdown_and_latex_all_name_it():
    data = evaluated(STORIES, STILL)
    (told,) = [flag for flag in data.flags if flag.startswith("slides is best in")]
    for text in (printed(data), page(data), markdown(data)):
        assert "hardly moves" in text
        assert " ".join(told.split()) in " ".join(text.split())
    assert "hardly moves" in latex(data)
    assert "it may win by freezing" in latex(data)
    without = {name: STILL[name] for name in ("moves", "wild")}
    for text in (printed(evaluated(STORIES, without)), page(evaluated(STORIES, without))):
        assert "may win by freezing" not in text


@pytest.mark.parametrize("count", [2, RANKED - 1])
def test_too_few_stories_give_no_ranks_no_bold_and_one_line(count):
    few = {key: STORIES[key] for key in list(STORIES)[:count]}
    data = evaluated(few, {"near": {"spread": 0.3}, "far": {"spread": 0.9}})
    assert data.ranks == []
    assert {entry.rank for one in tables(data) for row in one.rows for entry in row.entries} == {0}
    assert "**" not in markdown(data)
    assert r"\textbf" not in latex(data)
    assert "bold" not in latex(data)
    (told,) = [warning for warning in data.warnings if "stories" in warning]
    assert told.startswith(f"{count} stories: no ranks and no best in bold, for fewer than {RANKED}")
    shown = page(data)
    assert "Chance of each rank" not in shown
    assert 'class="n best' not in shown
    assert "too few to tell methods apart" in shown
    assert "ranking survives" not in shown
    assert all(d.p > 0.05 for d in data.differences)


def test_enough_stories_give_ranks():
    data = evaluated(STORIES, {"near": {"spread": 0.3}, "far": {"spread": 0.9}})
    assert entries(data)["near", "inter_shot_viclip_adjacent"].rank == 1
    assert "Chance of each rank" in page(data)
    (found,) = [d for d in data.differences if d.metric == "inter_shot_viclip_adjacent"]
    assert found.p < 0.05


# -- the same shots ------------------------------------------------------------------------------

ALL = {f"s{i}/01_02" for i in range(RANKED)}


def cuts_in_shots(evaluation, place, cuts):
    """The evaluation with so many cuts inside the shots of a method: (scene, shot) -> number."""
    method = evaluation.methods[place]
    arrays = {
        key: array if key[2] != "stat_inner_cuts" else array.repeat(0).__class__((cuts[key[1]],), array.dtype)
        for key, array in method.store.arrays.items()
    }
    store = FeatureTable(arrays, method.store.frames, method.store.rates)
    scores = score(all_readings(evaluation.preset), STORIES, store, recipe=evaluation.recipe)
    changed = type(method)(submission=method.submission, scores=scores, store=store)
    methods = [*evaluation.methods]
    methods[place] = changed
    return type(evaluation)(**{**vars(evaluation), "methods": tuple(methods)})


CUTS = {(1, 1): 1, (1, 2): 9, (1, 3): 1, (2, 1): 1, (2, 2): 1}


def test_differences_are_on_the_shots_that_both_have_and_bold_agrees():
    evaluation = evaluations.evaluation(STORIES, {"whole": {}, "gaps": {"absent": ALL}})
    evaluation = cuts_in_shots(evaluation, 0, CUTS)
    evaluation = cuts_in_shots(evaluation, 1, {**CUTS, (1, 1): 2})
    data = report_data(evaluation, pictures=False)
    cells = entries(data, "weight-free")
    # The shot that only one has makes it look worse, on the others it is better.
    assert cells["whole", "inner_cuts"].cell.value == pytest.approx((11 / 3 + 1) / 2)
    assert cells["gaps", "inner_cuts"].cell.value == pytest.approx((3 / 2 + 1) / 2)
    (found,) = [d for d in data.differences if d.metric == "inner_cuts"]
    assert found.difference.value == pytest.approx(1 - 5 / 4)
    assert found.wins == RANKED
    (ranks,) = [r for r in data.ranks if r.metric == "inner_cuts"]
    assert ranks.probabilities["whole"] == [1, 0]
    assert {cells[m, "inner_cuts"].rank for m in ("whole", "gaps")} <= {0, 2}
    assert "gaps lacks 6 shots, which are in no number: its cells are of 24 of 30 shots" in data.warnings
    assert any("24 of 30 are of all of them" in warning for warning in data.warnings)


def test_what_was_read_off_joined_frames_with_a_hidden_shot_has_no_value():
    evaluation = evaluations.evaluation(STORIES, {"whole": {}, "gaps": {"absent": ALL}})
    scores = shared_scores(evaluation, evaluation.methods)
    whole, gaps = scores["whole"].metrics, scores["gaps"].metrics
    groups = whole["semantic_story"].stories["s0"].per_group()
    assert [name for name, value in groups.items() if value == value] == ["2"]
    assert set(gaps["semantic_story"].stories["s0"].per_group()) >= {"1", "2"}
    name = "inter_shot_viclip_adjacent"
    sizes = [[len(units) for _, units in part[name].stories["s0"].groups] for part in (whole, gaps)]
    assert sizes[0] == sizes[1]
    assert gaps[name].per_story() == evaluation.methods[1].scores.metrics[name].per_story()


def test_methods_that_lack_the_same_shots_keep_their_scores():
    evaluation = evaluations.evaluation(STORIES, {"a": {"absent": ALL}, "b": {"absent": ALL}})
    assert missing_shots(evaluation.methods[0].submission.clips, STORIES)
    found = shared_scores(evaluation, evaluation.methods)
    assert all(found[m.name] is m.scores for m in evaluation.methods)
    data = report_data(evaluation, pictures=False)
    assert not any("lack different" in line for line in [*data.warnings, *data.fairness_flags])
