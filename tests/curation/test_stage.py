import pyarrow as pa
import pytest

from curation.engine.stage import check_columns, plan
from tests.curation.toy import SOURCE, STEPS, Double, Square


def test_a_plan_knows_the_columns_after_every_step():
    schemas = plan(STEPS, SOURCE).schemas
    assert {"square", "note", "path", "status"} <= set(schemas[0].names)
    assert set(schemas[-1].names) == {"sequence_id", "half", "back", "status", "stage", "reason", "detail"}


def test_a_missing_column_is_named_before_anything_runs():
    with pytest.raises(
        ValueError, match=r"double reads \['sequence_id', 'half'\]; columns so far: .*'number'"
    ):
        plan([Square(), Double()], SOURCE)


def test_two_steps_may_not_write_the_same_column():
    with pytest.raises(ValueError, match=r"square writes.*already wrote"):
        plan([Square(), Square(offset=1)], SOURCE)


def test_columns_must_be_the_declared_ones():
    with pytest.raises(TypeError, match=r"square: undeclared \['surprise'\], missing \['note'\]"):
        check_columns(
            Square(), ["square", "surprise"], pa.schema([("square", pa.int64()), ("note", pa.int64())]).names
        )
