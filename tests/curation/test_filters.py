import dataclasses

import pyarrow as pa
import pytest

from curation import rows
from curation.config import SettingsError, build
from curation.stages.filters import Filters
from tests.curation.judged_film import GOOD, film


def verdicts(row, filters=None):
    (written,) = (filters or Filters()).judge([row])
    return written["shot_verdicts"]


def judge(filters=None, **score):
    return verdicts(film([6.0], scores={0: score}), filters)[0]


@pytest.mark.parametrize(
    ("score", "reason"),
    [
        ({"corrupt_share": 0.01}, "corrupt"),
        ({"luma_p90": 3.0, "contrast": 25.0}, "too_dark"),
        ({"luma_p90": 9.0, "contrast": 5.0, "luma_mean": 5.2}, "too_dark"),
        ({"luma_mean": 246.0}, "too_bright"),
        ({"freeze_share": 0.98, "motion": 0.0}, "frozen"),
        ({"contrast": 4.0}, "low_contrast"),
        ({"sharpness": 2.0}, "blurred"),
        ({"motion": 0.0}, "static"),
        ({"shake": 0.06}, "shaky"),
        ({"flicker": 40.0}, "flicker"),
        ({"text_free_share": 0.18}, "title_over_picture"),
    ],
)
def test_each_fault_has_its_reason(score, reason):
    verdict = judge(**score)

    assert (verdict["usable"], verdict["reason"]) == (False, reason)
    name = next(iter(score))
    assert name in verdict["detail"]


@pytest.mark.parametrize(
    "score",
    [
        {"luma_mean": 9.7, "luma_p90": 21.0, "contrast": 21.1, "dark_share": 1.0, "motion": 0.6},  # hangar
        {"luma_mean": 16.0, "luma_p90": 45.7, "contrast": 20.0, "dark_share": 1.0},  # a face at night
        {"motion": 1.35, "freeze_share": 0.0},  # a character who holds still
        {"flicker": 11.0, "shake": 0.0294},  # a whip pan in a fight
        {"sharpness": 12.4},  # compressed fog
        {"text_free_share": 0.58},  # two burnt-in lines
    ],
)
def test_real_footage_is_kept(score):
    assert judge(**score) == {"usable": True, "reason": None, "detail": None}


def test_what_could_not_be_computed_breaks_no_rule():
    nothing = dict.fromkeys(GOOD)

    assert judge(**nothing)["usable"]


def test_a_rule_can_be_switched_off():
    numbers = [f.name for f in dataclasses.fields(Filters) if f.name != "duplicates"]
    lenient = Filters(**dict.fromkeys(numbers))

    assert judge(lenient, motion=0.0, sharpness=0.0, luma_p90=0.0, corrupt_share=1.0)["usable"]


def test_looks_are_judged_only_when_asked_for_and_only_where_scored():
    row = film([6.0, 6.0, 6.0])
    row["aesthetics"] = [4.2, None, 5.5]

    assert all(v["usable"] for v in verdicts(row))
    judged = verdicts(row, Filters(min_aesthetic=5.0))
    assert [v["reason"] for v in judged] == ["unaesthetic", None, None]
    assert judged[0]["detail"] == "aesthetic 4.2 < 5"


def copied(row, shot, other, **more):
    """The film with a shot of it known as a copy of another."""
    names = [s["shot_id"] for s in row["shots"]]
    pair = {"shot_id": names[shot], "copy_of": names[other], "distance": 4.0, "is_part": False, **more}
    return {**row, "copies": [*row["copies"], pair]}


def reasons(row, **thresholds):
    return [v["reason"] for v in verdicts(row, Filters(**thresholds))]


def test_a_copy_is_rejected_unless_wanted():
    row = copied(film([6.0, 6.0]), 1, 0)
    first, second = (s["shot_id"] for s in row["shots"])

    assert reasons(row) == [None, "duplicate"]
    assert first in verdicts(row)[1]["detail"]
    assert reasons(row, duplicates=False) == [None, None]
    (written,) = Filters(duplicates=False).judge([row])
    assert written["duplicates"] == [{"shot_id": second, "duplicate_of": first, "distance": 4.0}]


def test_a_faulty_shot_takes_no_others_place():
    row = copied(film([6.0, 6.0], scores={0: {"sharpness": 10.0}}), 1, 0)

    assert reasons(row) == [None, "duplicate"]
    assert reasons(row, min_sharpness=20) == ["blurred", None]
    assert reasons(row, min_sharpness=200) == ["blurred", "blurred"]
    assert reasons(row, min_sharpness=20, duplicates=False) == ["blurred", None]


def test_a_whole_before_its_part_whichever_looks_better():
    row = copied(film([6.0, 10.0], scores={1: {"corrupt_share": 0.1}}), 0, 1, is_part=True)

    assert reasons(row, max_corrupt_share=None) == ["duplicate", None]
    assert reasons(row) == [None, "corrupt"]


def test_a_copy_of_a_film_that_is_not_there_stays():
    row = film([6.0])
    pair = {"shot_id": row["shots"][0]["shot_id"], "copy_of": "gone", "distance": 0.0, "is_part": False}

    assert reasons({**row, "copies": [pair]}) == [None]


def test_it_writes_its_columns_to_kept_films_only():
    row = copied(film([6.0, 6.0, 6.0], scores={1: {"motion": 0.0}}), 2, 0)
    failed = {**film([6.0], name="b"), "status": "failed", "shots": None, "copies": None}

    good, bad = Filters().fold([row, failed])

    table = pa.Table.from_pylist([good], schema=Filters.writes)
    assert table.schema.field("shot_verdicts").type == pa.list_(rows.SHOT_VERDICT)
    assert [v["usable"] for v in good["shot_verdicts"]] == [True, False, False]
    assert len(good["duplicates"]) == 1
    assert (bad["shot_verdicts"], bad["duplicates"], bad["status"]) == (None, None, "failed")


def test_settings_come_from_files_as_text():
    assert build(Filters, {"min_sharpness": None, "max_shake": 0.02}, "x").max_shake == 0.02
    with pytest.raises(SettingsError, match="min_sharpness"):
        build(Filters, {"min_sharpnes": 3}, "x")
