"""The published contract: names that never change, descriptions everywhere, and the page that shows them."""

import subprocess
import sys

import pyarrow as pa
import pytest

from curation import rows, schema
from tests.support import REPOSITORY

PROMISED = {
    "films": "film_id path sha256 duration_s fps width height status reason",
    "shots": "shot_id film_id shot_index start_frame end_frame start_s end_s transition_in transition_out",
    "sequences": "sequence_id film_id start_s end_s num_shots crop_x crop_y crop_width crop_height"
    " story_caption status reason",
    "clips": "clip_id sequence_id shot_id clip_index video_path num_frames fps height width"
    " global_caption shot_caption caption",
    "subjects": "subject_id sequence_id label description is_primary screen_time_s",
    "tracks": "subject_id shot_id frame time_s x y width height score",
    "recon_targets": "recon_id sequence_id subject_id clip_id frame_in_clip_16fps image_path caption",
    "captions": "sequence_id stage status backend model_id revision prompt_hash tokens_in tokens_out faults",
    "rejects": "id grain film_id stage status reason detail",
    "coverage": "film_id start_s end_s used_by reason",
}


def test_promised_names() -> None:
    assert list(schema.TABLES) == list(PROMISED)
    for table, names in PROMISED.items():
        missing = set(names.split()) - set(schema.TABLES[table].names)
        assert not missing, f"{table}: {sorted(missing)}"


@pytest.mark.parametrize("table", schema.TABLES)
def test_every_column_is_described(table: str) -> None:
    described = schema.TABLES[table]
    assert len(set(described.names)) == len(described.names)
    assert schema.grain(described)
    for field in described:
        assert schema.note(field, "description"), field.name
        assert schema.note(field, "stage"), field.name


@pytest.mark.parametrize("table", ["shots", "sequences"])
def test_every_quality_score_is_a_column(table: str) -> None:
    for score in rows.SHOT_SCORES:
        if not score.name.startswith("phash"):
            assert schema.TABLES[table].field(score.name).type == score.type
    for name in ("phash", "phash_end"):
        assert schema.TABLES["shots"].field(name).type.value_type == pa.string()


def test_nested_types_are_those_of_the_pipeline() -> None:
    assert schema.MODEL.equals(rows.MODEL)
    assert schema.OVERLAY.equals(rows.OVERLAY)
    assert schema.PRESET_COVERAGE.equals(rows.PRESET_COVERAGE)


def test_contract_module_imports_only_arrow() -> None:
    code = "import sys, curation.schema; print(*sorted(m for m in sys.modules if m.startswith('curation')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["curation", "curation.schema"]


def test_documentation_shows_the_schema() -> None:
    page = (REPOSITORY / "docs" / "dataset.md").read_text(encoding="utf-8")
    shown = page.split("<!-- tables: python -m curation.schema -->\n")[1].split("<!-- end of tables -->")[0]
    assert shown == schema.reference(), "replace the tables by the output of: python -m curation.schema"
    assert f"Schema version {schema.SCHEMA_VERSION}." in page
