"""Everything a user may point at by mistake, in one folder, through the whole line."""

from __future__ import annotations

import duckdb
import pytest

from pipelines.curate import curate, prepare, resolve
from tests.odd_inputs import FAILED, SOUND
from tests.support import REPOSITORY

SETTINGS = {
    "sequences": {"min_window_s": 1, "min_shot_s": 1, "min_clips": 1},
    "recon_targets": {"keep_without": True},
}


@pytest.mark.slow
def test_every_file_is_accounted_for_and_the_rest_goes_on(tmp_path):
    made = {}
    for number, (name, odd) in enumerate({**FAILED, **SOUND}.items()):
        folder = tmp_path / "in" / f"{number:02d}"
        folder.mkdir(parents=True)
        try:
            made[number] = (name, odd.make(folder))
        except pytest.skip.Exception:
            continue
    job = resolve(
        [str(tmp_path / "in")], REPOSITORY / "datasets.yaml", output=tmp_path / "set", settings=SETTINGS
    )
    rows = prepare(job)
    report = curate(job, rows, on_ray=False)
    assert sum(report.published.counts["films"].values()) == len(rows)
    with duckdb.connect(str(tmp_path / "set" / "annotations.duckdb"), read_only=True) as sql:
        verdicts = dict(
            (path, (status, reason))
            for path, status, reason in sql.execute("SELECT path, status, reason FROM films").fetchall()
        )
    assert set(verdicts) == {row["path"] for row in rows}
    for name, path in made.values():
        if path.is_dir():  # named like a film: what is in it is found instead
            continue
        status, reason = verdicts[str(path)]
        assert (status == "failed") == (name in FAILED), (name, status, reason)
        assert status == "kept" or reason, name
    assert report.published.counts["films"]["kept"] >= 5
