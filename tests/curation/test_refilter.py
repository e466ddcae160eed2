import numpy as np
import pyarrow as pa
import pytest

from curation import rows, schema
from curation.config import SettingsError
from curation.packing import Rules
from curation.presets import PRESETS
from curation.refilter import Settings, compare, films_from_tables, prepare, select, what_if
from curation.stages.filters import Filters
from curation.stages.sequences import Sequences
from tests.curation.judged_film import film, random_hashes
from tests.support import scratch


@pytest.fixture
def films():
    """Two films; one shot of the first is softer than the rest."""
    rng = np.random.default_rng(0)
    soft = {i: {"phash": random_hashes(rng, 4), "phash_end": random_hashes(rng, 4)} for i in range(8)}
    soft[3]["sharpness"] = 10.0
    first = film([10] * 8, name="a", scores=soft)
    second = film([10] * 3 + [4], name="b", gaps_s=[0, 0, 1, 0], transitions={2: "fade"})
    return [first, second]


NOW = Settings(Filters(min_sharpness=20), Sequences(max_window_s=40))


def test_selects_what_the_stages_would(films, tmp_path):
    selection, num_usable = select(prepare(films), NOW)

    wanted, usable = set(), 0
    for row in NOW.filters.fold(films):
        row = {**row, **NOW.sequences.worker()({c: row[c] for c in Sequences.reads}, scratch(tmp_path))}
        usable += sum(v["usable"] for v in row["shot_verdicts"])
        wanted |= {s["used_by"] for s in row["coverage"] if s["used_by"]}
    assert set(selection.sequences) == wanted
    assert num_usable == usable == 11
    assert selection.total_s == pytest.approx(115)
    assert selection.covered_s == pytest.approx(100)
    assert selection.lost_s == pytest.approx({"blurred": 10, "shot_too_short": 4, "transition": 1})
    assert list(selection.lost_s) == ["blurred", "shot_too_short", "transition"]


def test_compare_names_what_stays_enters_and_leaves(films):
    change = compare(films, NOW, NOW.changed({"filters": {"min_sharpness": 5}}))

    def spans(packed):
        return [(s.path[7], s.start_s, s.end_s) for s in packed]

    assert spans(change.stay) == [("a", 40.0, 80.0), ("b", 0.0, 31.0)]
    assert spans(change.enter) == [("a", 0.0, 40.0)]
    assert spans(change.leave) == [("a", 0.0, 30.0)]
    assert change.after.covered_s - change.before.covered_s == pytest.approx(10)
    assert compare(films, NOW, NOW).enter == compare(films, NOW, NOW).leave == ()


def test_packing_rules_can_change_too(films):
    change = compare(films, NOW, NOW.changed({"sequences": {"min_shot_s": 2, "max_window_s": 45}}))

    assert [(s.path[7], s.end_s) for s in change.enter] == [("b", 35.0)]
    assert change.after.lost_s.get("shot_too_short") is None


def test_what_if_is_a_line_per_value(films):
    lines = what_if(films, "filters.min_sharpness", [5, 20, 1000], NOW)

    assert [line.value for line in lines] == [5, 20, 1000]
    assert [line.usable_shots for line in lines] == [12, 11, 0]
    assert [(line.enter, line.leave) for line in lines] == [(1, 1), (0, 0), (0, 3)]
    assert [round(line.covered_s) for line in lines] == [110, 100, 0]
    assert lines[0].num_clips == 11
    assert lines[0].share == pytest.approx(110 / 115)
    assert lines == what_if(prepare(films), "filters.min_sharpness", [5, 20, 1000], NOW)


def test_mistakes_are_named(films):
    with pytest.raises(SettingsError, match="min_sharpness"):
        what_if(films, "filters.min_sharpnes", [1])
    with pytest.raises(SettingsError, match="refilter cannot change 'scan'"):
        Settings().changed({"scan": {"threads": 2}})
    with pytest.raises(SettingsError, match=r"stage\.setting"):
        what_if(films, "min_sharpness", [1])
    with pytest.raises(SettingsError, match="min_window_s"):
        Settings().changed({"sequences": {"min_window_s": 100}})


def test_the_change_keeps_the_other_settings():
    changed = NOW.changed({"filters": {"max_shake": 0.01}})

    assert changed.filters == Filters(min_sharpness=20, max_shake=0.01)
    assert changed.sequences == NOW.sequences
    assert isinstance(changed.sequences, Rules)


def test_films_without_shots_are_left_out(films):
    failed = {**films[0], "status": "failed", "shots": None, "shot_scores": None}

    assert len(prepare([failed, films[1]])) == 1
    assert what_if([], "filters.max_shake", [1])[0].share is None


def published(films, filters=NOW.filters):
    """The published tables of the films, as far as refiltering reads them."""
    films = filters.fold(films)
    film_rows = [{**f, **f["stream"]} for f in films] + [{"path": "/films/broken.mp4", "status": "failed"}]
    shot_rows = []
    for f in films:
        copies = {d["shot_id"]: d for d in f["duplicates"]}
        for shot, score, looks in zip(f["shots"], f["shot_scores"], f["aesthetics"], strict=True):
            copy = copies.get(shot["shot_id"], {})
            extra = {"duplicate_of": copy.get("duplicate_of"), "duplicate_distance": copy.get("distance")}
            better = [c for c in f["copies"] if c["shot_id"] == shot["shot_id"]]
            extra["better_copies"] = [{**c, "shot_id": c["copy_of"]} for c in better]
            shot_rows.append({**shot, **score, **extra, "aesthetic": looks, "film_id": f["film_id"]})
    tables = []
    for values, wanted in ((film_rows, schema.FILMS), (shot_rows, schema.SHOTS)):
        columns = {c: pa.array([v.get(c) for v in values], wanted.field(c).type) for c in wanted.names}
        tables.append(pa.table(columns))
    return tables


@pytest.fixture
def copied(films):
    """The soft shot has a copy in the other film, which gives way to it."""
    soft, other = films[0]["shots"][3]["shot_id"], films[1]["shots"][0]["shot_id"]
    films[1]["copies"] = [{"shot_id": other, "copy_of": soft, "distance": 3.0, "is_part": False}]
    return films


def test_published_tables_give_the_same_answer(copied):
    back = films_from_tables(*published(copied))

    for settings in (NOW, NOW.changed({"filters": {"min_sharpness": 5}})):
        assert select(prepare(back), settings) == select(prepare(copied), settings)
    lenient = NOW.changed({"filters": {"min_sharpness": 5}})
    assert what_if(back, "filters.duplicates", [True, False], lenient)[1].enter == 1


def test_who_stays_changes_with_the_threshold(copied):
    strict, lenient = what_if(films_from_tables(*published(copied)), "filters.min_sharpness", [20, 5], NOW)

    assert [line.usable_shots for line in (strict, lenient)] == [11, 11]
    assert strict.num_clips - lenient.num_clips == 2, (
        "one more in its film, and too little is left of the other one"
    )


def test_tables_of_before_the_pairs_know_the_copy_that_stayed(copied):
    lenient = NOW.changed({"filters": {"min_sharpness": 5}})
    film_table, shot_table = published(copied, lenient.filters)

    back = films_from_tables(film_table, shot_table.drop_columns("better_copies"))

    assert select(prepare(back), lenient) == select(prepare(copied), lenient)
    assert select(prepare(back), NOW) == select(prepare(copied), NOW)


def test_a_threshold_on_looks_needs_no_decoding(films):
    scores = [float(k % 7) for k in range(len(films[0]["shots"]))]
    films[0]["aesthetics"] = scores
    back = films_from_tables(*published(films))

    assert back[0]["aesthetics"] == scores
    assert back[1]["aesthetics"] == [None] * len(films[1]["shots"])
    off, strict = what_if(back, "filters.min_aesthetic", [None, 3.0], NOW)
    judged = next(NOW.filters.judge(films))["shot_verdicts"]
    ugly = sum(v["usable"] and s < 3.0 for v, s in zip(judged, scores, strict=True))
    assert ugly > 0
    assert off.usable_shots - strict.usable_shots == ugly
    assert select(prepare(back), NOW.changed({"filters": {"min_aesthetic": 3.0}})) == select(
        prepare(films), NOW.changed({"filters": {"min_aesthetic": 3.0}})
    )


def test_a_preset_is_a_set_of_settings(films, tmp_path, monkeypatch, capsys):
    from pipelines import refilter_command

    monkeypatch.setattr(refilter_command, "read", lambda output: (prepare(films), NOW))
    seen = []
    monkeypatch.setattr(refilter_command, "show", lambda console, change: seen.append(change))
    refilter_command.main(tmp_path, {"sequences": {"min_clips": 3}}, None, "bridged")
    asked = NOW.changed({"sequences": {**PRESETS["bridged"], "min_clips": 3}})
    assert seen == [compare(films, NOW, asked)]
    with pytest.raises(SettingsError, match="did you mean 'bridged'"):
        refilter_command.main(tmp_path, {}, None, "briged")


def test_published_scores_are_the_scores():
    """What refiltering needs is published under the same names."""
    assert {f.name for f in rows.SHOT_SCORES} <= set(schema.SHOTS.names)


def test_a_hundred_thousand_shots_take_seconds():
    """Linear in the shots: a tenth of them here, judged and packed at two values."""
    rng = np.random.default_rng(1)
    many = []
    for i in range(10):
        lengths = np.round(rng.lognormal(1.4, 0.6, 1000) + 0.3, 2)
        many.append(film(lengths.tolist(), name=f"f{i}"))

    lines = what_if(many, "filters.min_sharpness", [1, 500])

    assert lines[0].num_sequences > 50
    assert lines[1].num_sequences == 0
