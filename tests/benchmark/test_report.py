from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace

import pytest

from benchmark.aggregate import RecipeMismatch
from benchmark.calibration import calibrate
from benchmark.features import FeatureTable
from benchmark.metrics import METRICS
from benchmark.presets import all_readings, preset
from benchmark.report.data import report_data
from benchmark.report.layout import interval, reported_tables, shown, table, tables
from benchmark.report.results import ResultsError, read_results, write_results
from benchmark.report.schema import Cell
from benchmark.report.tables import csv_long, csv_wide, latex, markdown, md, write_tables
from benchmark.scoring import score
from benchmark.statistics import cell_interval
from tests.benchmark import evaluations, made

STORIES = {
    f"s{i}": made.story(
        f"s{i}",
        (3, 2) if i else (3,),
        prompts=[f"[Person A] walks, [Person B] waits, shot {n}." for n in range(5)],
        overview="A walk.",
        source="storymem",
    )
    for i in range(7)
}
METHODS = {
    "near": {"spread": 0.3},
    "far": {"spread": 0.9, "fps": 15.0, "bitrate": 5e5},
    "gaps": {"spread": 0.5, "absent": ("s1/01_02", "s2/02_01")},
}


@pytest.fixture(scope="module")
def evaluated():
    return evaluations.evaluation(STORIES, METHODS)


@pytest.fixture(scope="module")
def data(evaluated):
    return report_data(evaluated, pictures=False)


def numbers_of(entry):
    return entry.cell.value, entry.cell.low, entry.cell.high


def test_cells_are_the_scores_with_their_intervals(evaluated, data):
    scored = evaluated.methods[1].scores.metrics["inter_shot_viclip_adjacent"]
    found = data.methods[1].scores["inter_shot_viclip_adjacent"]
    for order in ("macro", "story_pooled", "micro"):
        assert found.cells[order] == Cell(**cell_interval(scored, order)._asdict())
    assert found.per_story["macro"] == scored.per_story()
    assert found.coverage["stories"] == [7, 7]


def test_what_is_undefined_is_none_with_a_reason(data):
    inter_scene = data.methods[0].scores["inter_scene"]
    assert inter_scene.per_story["macro"]["s0"] is None
    assert inter_scene.coverage["stories"] == [6, 7]
    only_one_scene = {"s0": STORIES["s0"]}
    alone = report_data(evaluations.evaluation(only_one_scene, {"a": {}}), pictures=False)
    found = alone.methods[0].scores["inter_scene"]
    assert found.cells["macro"].value is None
    assert found.reason.startswith("the story does not have it")
    assert [entry.cell.value for row in table(alone).rows for entry in row.entries][-1] is None
    assert "0.0000" not in markdown(alone).split("Weight-free")[0]


def test_methods_without_weights_have_weight_free_numbers_only():
    data = report_data(evaluations.evaluation(STORIES, {"a": {}}, weights=False), pictures=False)
    assert all(metric.reason for metric in data.columns("preset"))
    aesthetic = data.metric("aesthetic")
    assert aesthetic.reason.startswith("unavailable: weights missing")
    assert aesthetic.encoders == ["clip-l14", "aes-mlp"]
    assert "memento weights pull clip-l14" in aesthetic.reason
    assert not any(metric.reason for metric in data.columns("weight-free"))
    assert data.similarity_kind == ""
    assert data.worst_pairs == []
    assert not any("unavailable" in warning for warning in data.warnings)
    assert data.methods[0].scores["motion"].cells["macro"].value is not None


def test_differences_are_paired_corrected_and_point_the_right_way(data):
    found = [d for d in data.differences if d.metric == "inter_shot_viclip_adjacent"]
    assert [(d.first, d.second) for d in found] == [("near", "far"), ("near", "gaps"), ("far", "gaps")]
    assert found[0].difference.value > 0
    assert found[0].wins == 7
    assert found[0].p == 2 / 2**7
    assert all(d.p_holm >= d.p for d in data.differences)
    ranks = {r.metric: r for r in data.ranks}["inter_shot_viclip_adjacent"]
    assert ranks.probabilities["near"][0] > 0.9
    assert ranks.probabilities["far"] == [0, 0, 1]


def test_the_first_of_a_pair_wins_where_less_is_better():
    still = {"calm": {"freeze": 0.1}, "frozen": {"freeze": 0.8}}
    data = report_data(evaluations.evaluation(STORIES, still), pictures=False)
    found = next(d for d in data.differences if d.metric == "freeze")
    assert found.difference.value == pytest.approx(-0.7)
    assert found.wins == 7
    assert {r.metric: r for r in data.ranks}["freeze"].probabilities["calm"] == [1, 0]


def test_calibration_is_that_of_the_metrics(evaluated, data):
    metric = METRICS["background"]
    found = next(c for c in data.calibration if (c.metric, c.method) == ("background", "far"))
    method = evaluated.methods[1]
    made_ = calibrate(metric, method.scores.metrics["background"], STORIES, method.store)
    assert (found.floor, found.ceiling, found.cheat) == (made_.floor, made_.ceiling, made_.cheat)
    assert found.calibrated == made_.calibrated
    texts = next(c for c in data.calibration if c.metric == "semantic_shot")
    assert texts.ceiling is None
    assert texts.calibrated is None
    assert not any(c.metric == "aesthetic" for c in data.calibration)


def test_who_wins_by_standing_still_is_told():
    methods = {"still": {"spread": 0.1, "motion": 0.3, "freeze": 0.9}, "moves": {"spread": 0.6}}
    flags = report_data(evaluations.evaluation(STORIES, methods), pictures=False).flags
    (told,) = [flag for flag in flags if "by freezing" in flag]
    assert told.startswith("still is best in ")
    assert "Subject, inter-shot" in told
    assert ", but moves 0.3 % of the width per second, the others 4" in told
    assert "90 % of its frame steps are frozen" in told
    fair = {"a": {"spread": 0.3}, "b": {"spread": 0.6}}
    told = report_data(evaluations.evaluation(STORIES, fair), pictures=False).flags
    assert not any("by freezing" in flag or "by copying" in flag for flag in told)


def test_controls_compete_with_nobody(evaluated):
    control = evaluations.result(
        "near, frozen", STORIES, chosen=evaluated.preset, made=evaluated.recipe, spread=0.0, seed=3
    )
    made_ = evaluations.evaluation(STORIES, METHODS)
    with_control = report_data(type(made_)(**{**vars(made_), "controls": (control,)}), pictures=False)
    assert [m.name for m in with_control.compared()] == list(METHODS)
    assert with_control.methods[-1].control
    assert not any("frozen" in d.first + d.second for d in with_control.differences)
    shown_table = table(with_control)
    assert [row.method for row in shown_table.controls] == ["near, frozen"]
    assert all(entry.rank == 0 for entry in shown_table.controls[0].entries)
    (line,) = [flag for flag in with_control.flags if flag.startswith("near, frozen does no worse than")]
    assert line.startswith("near, frozen does no worse than near, far, gaps in: ")
    assert "Background" in line
    assert "Cuts inside shots" not in line  # none in either


def test_a_control_is_only_told_of_what_could_tell_it():
    """Shots in other places are the same shots: their sharpness and flicker say nothing about a control."""
    evaluated = evaluations.evaluation(STORIES, {"a": {"spread": 0.9, "freeze": 0.4}})
    moved = evaluations.result(
        "a, shuffled", STORIES, chosen=evaluated.preset, made=evaluated.recipe, spread=0.0, freeze=0.1
    )
    (line,) = [
        flag
        for flag in report_data(replace(evaluated, controls=(moved,)), pictures=False).flags
        if flag.startswith("a, shuffled")
    ]
    assert line.startswith("a, shuffled does no worse than a in: ")
    assert "Subject, inter-shot" in line
    assert "Frozen" not in line
    worse = evaluations.result(
        "a, frozen", STORIES, chosen=evaluated.preset, made=evaluated.recipe, spread=0.9, freeze=1.0
    )
    told = report_data(replace(evaluated, controls=(worse,)), pictures=False).flags
    assert not any("Frozen" in flag for flag in told)


def test_similarities_drift_and_worst_pairs(data):
    view = data.views["s1"]
    assert [m.method for m in view.matrices] == list(METHODS)
    near, gaps = view.matrices[0], view.matrices[2]
    assert near.stems == ["01_01", "01_02", "01_03", "02_01", "02_02"]
    for i in range(5):
        assert near.values[i][i] == 1
        assert [near.values[i][j] for j in range(5)] == [near.values[j][i] for j in range(5)]
    assert [row[1] for row in gaps.values] == [None] * 5
    assert [d.name for d in view.drift] == ["Person A", "Person B"]
    assert view.drift[0].values["near"] == near.values[0]
    assert view.drift[0].values["gaps"][1] is None
    worst = [pair for pair in data.worst_pairs if pair.method == "near"]
    assert len(worst) <= 6
    assert worst == sorted(worst, key=lambda pair: pair.similarity)
    lowest = min(v for s in STORIES for row in data.views[s].matrices[0].values for v in row)
    assert worst[0].similarity == lowest
    assert max(sum(p.story == story for p in worst) for story in STORIES) <= 2


def test_scenes_stand_in_where_no_character_is_named():
    plain = {"a": made.story("a", (3, 1)), "b": made.story("b", (2, 2))}
    data = report_data(evaluations.evaluation(plain, {"x": {}}), pictures=False)
    assert [d.name for d in data.views["a"].drift] == ["scene 1"]
    assert [d.stems for d in data.views["b"].drift] == [["01_01", "01_02"], ["02_01", "02_02"]]


def test_the_split_counts_every_pair_once(data):
    near = {s.name: s for s in data.split if s.method == "near" and s.kind == "joined"}
    assert {name: one.pairs for name, one in near.items()} == {"continuation": 2 + 6 * 3, "scene_change": 6}
    gaps = {s.name: s.pairs for s in data.split if s.method == "near" and s.kind == "recurrence"}
    assert gaps == {"1": 2 * (2 + 6 * 4), "2": 2 * (1 + 6 * 3), "3-4": 2 * 6 * 3}


def test_ambiguity_starts_with_the_reading_of_the_table(data):
    column = next(a for a in data.ambiguity if a.column == "Memento: Subject, inter-shot")
    assert (column.readings[0].metric, column.readings[0].order) == ("inter_shot_viclip_adjacent", "macro")
    assert {r.metric for r in column.readings} >= {"inter_shot_dino_adjacent", "inter_shot_character_grouped"}
    other = preset("memento", inter_shot="inter_shot_dino_adjacent")
    changed = report_data(
        evaluations.evaluation(STORIES, METHODS, inter_shot=other.inter_shot), pictures=False
    )
    column = next(a for a in changed.ambiguity if a.column == "Memento: Subject, inter-shot")
    assert column.readings[0].metric == "inter_shot_dino_adjacent"
    assert column.readings[0].flipped == []


def test_fairness_says_what_differs(data):
    told = " ".join(data.fairness_flags)
    assert "frame rates: near 16; far 15; gaps 16" in told
    assert "bits per pixel differ by a factor of" in told
    assert "lack different shots (of 33 there are: near 33; far 33; gaps 31; 31 of all)" in told
    rows = {row.method: row for row in data.fairness}
    assert rows["gaps"].flags == ["2 shots are missing"]
    assert rows["gaps"].characters == "tags of the prompts"
    assert rows["near"].flags == []
    assert rows["near"].prompts == "not declared; scored against prompts in StoryMem's form"
    same = evaluations.evaluation(STORIES, {"a": {}})
    clips = same.methods[0].submission.clips
    copied = {key: dict.fromkeys(shots, next(iter(shots.values()))) for key, shots in clips.items()}
    method = evaluations.result("b", STORIES, chosen=same.preset, made=same.recipe, clips=copied)
    both = report_data(type(same)(**{**vars(same), "methods": (*same.methods, method)}), pictures=False)
    assert "33 shots share their video with another shot" in both.fairness[1].flags
    assert any("a and b share 7 identical videos" in flag for flag in both.fairness_flags)


def test_scores_of_another_recipe_are_refused(evaluated):
    other = evaluations.result("x", STORIES, chosen=evaluated.preset, made="f" * 64)
    with pytest.raises(RecipeMismatch):
        report_data(type(evaluated)(**{**vars(evaluated), "methods": (other,)}), pictures=False)


def test_results_are_read_back_as_they_were_written(data, tmp_path):
    file = write_results(data, tmp_path)
    assert file == tmp_path / "results.json"
    assert read_results(tmp_path) == data
    again = write_results(read_results(file), tmp_path / "again.json")
    assert again.read_bytes() == file.read_bytes()
    assert "NaN" not in file.read_text()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "is no JSON"),
        ("[1]", "is no results of an evaluation"),
        ('{"format": "memento-results/9"}', "is of format memento-results/9"),
        ('{"format": "memento-results/1"}', "recipe: Field required"),
    ],
)
def test_files_that_are_no_results_are_told_in_a_line(text, told, tmp_path):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(ResultsError, match=told) as error:
        read_results(tmp_path)
    assert "\n" not in str(error.value)
    with pytest.raises(ResultsError, match="cannot be read"):
        read_results(tmp_path / "nowhere")


def test_reported_numbers_are_those_of_the_papers():
    by_id = {entry["id"]: entry for entry in reported_tables()}
    first = {row["method"]: row["values"] for row in by_id["memento-1"]["rows"]}
    assert first["Memento"] == [0.4977, 0.3063, 0.2893, 0.9805, 0.7338, 0.8578, 0.7268]
    other = {row["method"]: row["values"] for row in by_id["storymem-1"]["rows"]}
    assert other["StoryMem"] == [0.6133, 0.2289, 0.2313, 0.5065, 0.5337]
    assert first["StoryMem"][0] != other["StoryMem"][0]
    known = {metric.column for metric in METRICS.values()}
    for entry in by_id.values():
        assert entry["source"]
        assert entry["order"] == [column for column in entry["order"] if column in known]
        assert {column.split(":")[0] for column in entry["order"]} == {entry["paper"]}


def test_tables_have_the_papers_layout_and_keep_reported_rows_apart(data):
    one = table(data)
    assert [c.head for c in one.columns] == [
        "", "Story", "Shot", "", "Inter-shot", "Intra-shot", "Inter-scene",
    ]  # fmt: skip
    assert one.groups == [
        ("Aesthetic", 1),
        ("Semantic consistency", 2),
        ("Background consistency", 1),
        ("Subject consistency", 3),
    ]
    assert [row.method for row in one.rows] == list(METHODS)
    assert {reported.paper for reported in one.reported} == {"Memento"}
    assert [reported.ablation for reported in one.reported] == [False, True]
    best = [row.method for row in one.rows if row.entries[4].rank == 1]
    assert best == ["near"]
    assert table(data, "weight-free").reported == []


def test_other_presets_show_no_rows_of_another_paper():
    for name, paper in (("storymem", {"StoryMem"}), ("ours", set()), ("vbench", set())):
        data = report_data(evaluations.evaluation(STORIES, {"a": {}}, name=name), pictures=False)
        assert {r.paper for one in tables(data) for r in one.reported} == paper
        assert len({c.title for c in table(data).columns}) == len(table(data).columns)


def test_numbers_as_they_are_shown(data):
    metric = data.metric("background")
    assert shown(None, metric) == "-"
    assert shown(-0.00001, metric) == "0.0000"
    assert interval(Cell(value=0.5, low=0.25, high=0.75), metric) == "[0.2500, 0.7500]"
    assert interval(Cell(value=0.5), metric) == ""


def test_csv_has_every_number_and_its_provenance(data):
    rows = list(csv.DictReader(io.StringIO(csv_long(data))))
    sources = {row["source"] for row in rows}
    assert sources == {
        "measured",
        "reported: Memento, arXiv:2606.14667v1, Table 1, section 4.2.1",
        "reported: Memento, arXiv:2606.14667v1, Table 2, section 4.3 (ablation)",
    }
    for row in rows:
        assert row["value"] or row["reason"] or row["story"]
        assert row["value"] != "nan"
    cell = next(
        r for r in rows
        if r["method"] == "far" and r["metric"] == "background" and r["order"] == "macro" and not r["story"]
    )  # fmt: skip
    assert float(cell["value"]) == data.methods[1].scores["background"].cells["macro"].value
    wide = list(csv.DictReader(io.StringIO(csv_wide(data))))
    assert float(wide[1]["background low"]) == data.methods[1].scores["background"].cells["macro"].low
    assert len({len(row) for row in csv.reader(io.StringIO(csv_wide(data)))}) == 1


def test_names_are_data_in_every_table(tmp_path):
    name = "=cmd|x<b>_%"
    data = report_data(evaluations.evaluation(STORIES, {name: {}}), pictures=False)
    assert f"'{name}" in csv_long(data)
    assert r"=cmd\textbar{}x\textless{}b\textgreater{}\_\%" in latex(data)
    assert md(name) in markdown(data)
    assert "<b>" not in markdown(data)
    files = write_tables(data, tmp_path / "new")
    assert sorted(f.name for f in files) == [
        "results.json",
        "scores.csv",
        "table.csv",
        "table.md",
        "table.tex",
    ]
    assert not list((tmp_path / "new").glob(".*"))


def test_features_that_are_not_finite_never_become_zero():
    evaluated = evaluations.evaluation(STORIES, {"a": {}})
    method = evaluated.methods[0]
    arrays = {**method.store.arrays}
    for unit in [(1, 1), (1, 2), (1, 3)]:
        arrays["s0", unit, "viclip_24"] = arrays["s0", unit, "viclip_24"] * 0.0
    store = FeatureTable(arrays, method.store.frames, method.store.rates)
    scores = score(all_readings(evaluated.preset), STORIES, store, recipe=evaluated.recipe)
    changed = type(method)(submission=method.submission, scores=scores, store=store)
    data = report_data(type(evaluated)(**{**vars(evaluated), "methods": (changed,)}), pictures=False)
    found = data.methods[0].scores["inter_shot_viclip_adjacent"]
    assert found.per_story["macro"]["s0"] is None
    assert found.coverage["units"][1] == 2
    assert math.isfinite(found.cells["macro"].value)
    assert json.dumps(data.views["s0"].matrices[0].values[0]) == "[null, null, null]"
