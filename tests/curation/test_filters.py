import dataclasses

import pyarrow as pa
import pytest

from curation import rows
from curation.config import SettingsError, build
from curation.stages.filters import Filters
from tests.curation.judged_film import GOOD, film
from tests.support import scratch


def judge(filters=None, **score):
    row = film([6.0], scores={0: score})
    return (filters or Filters()).judge(row)[0]


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

    assert all(v["usable"] for v in Filters().judge(row))
    verdicts = Filters(min_aesthetic=5.0).judge(row)
    assert [v["reason"] for v in verdicts] == ["unaesthetic", None, None]
    assert verdicts[0]["detail"] == "aesthetic 4.2 < 5"


def test_a_copy_is_rejected_unless_wanted():
    row = film([6.0, 6.0])
    row["duplicates"] = [
        {"shot_id": row["shots"][1]["shot_id"], "duplicate_of": "other-shot", "distance": 4.0}
    ]

    verdicts = Filters().judge(row)

    assert [v["reason"] for v in verdicts] == [None, "duplicate"]
    assert "other-shot" in verdicts[1]["detail"]
    assert all(v["usable"] for v in Filters(duplicates=False).judge(row))


def test_stage_writes_its_columns(tmp_path):
    row = film([6.0, 6.0], scores={1: {"motion": 0.0}})

    written = Filters().worker()({c: row[c] for c in Filters.reads}, scratch(tmp_path))

    table = pa.Table.from_pylist([written], schema=Filters.writes)
    assert table.schema.field("shot_verdicts").type == pa.list_(rows.SHOT_VERDICT)
    assert [v["usable"] for v in written["shot_verdicts"]] == [True, False]


def test_settings_come_from_files_as_text():
    assert build(Filters, {"min_sharpness": None, "max_shake": 0.02}, "x").max_shake == 0.02
    with pytest.raises(SettingsError, match="min_sharpness"):
        build(Filters, {"min_sharpnes": 3}, "x")
