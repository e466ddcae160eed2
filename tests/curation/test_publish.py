"""Publishing: the contract's tables from pipeline rows, equal bytes for equal content, and an atomic swap."""

import errno
import hashlib
import itertools
import json
import os
import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from curation.engine.stage import StopRun
from curation.publishing import publish as publishing
from curation.publishing.parquet import row_batches, write_table
from curation.publishing.publish import publish
from curation.publishing.tables import film_verdict
from curation.schema import TABLES
from tests.curation.rows_factory import HOSTILE, bad_film, film, outcome, rejected, sequence, stream

FACTS = {"dataset": "toy", "preset": "paper-table", "settings": {"scan": {"threads": 1}}}
GOOD = "f222222222222222"


def published(folder: Path):
    tables, store = outcome(folder / ".work")
    return publish(tables, store, folder, FACTS)


def read(folder: Path, table: str) -> list[dict]:
    return pq.read_table(folder / "tables" / f"{table}.parquet").to_pylist()


def content(folder: Path) -> dict[str, str]:
    """Hash of every file of a version, but for those that hold times and paths."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in ("run.json", "annotations.duckdb"):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            found[path.relative_to(folder).as_posix()] = digest
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    published(folder)
    return folder


# -- what is in the tables ----------------------------------------------------------------------


@pytest.mark.parametrize("table", TABLES)
def test_tables_have_the_promised_columns_and_descriptions(made: Path, table: str) -> None:
    stored = pq.read_schema(made / "tables" / f"{table}.parquet")
    assert stored.equals(TABLES[table])
    assert stored.metadata == TABLES[table].metadata
    assert [f.metadata for f in stored] == [f.metadata for f in TABLES[table]]
    assert read(made, table), "an empty table tests nothing"


def test_every_film_found_is_accounted_for(made: Path) -> None:
    films = {f["path"]: f for f in read(made, "films")}
    assert len(films) == 6
    status = [f["status"] for f in films.values()]
    assert [status.count(s) for s in ("kept", "rejected", "failed")] == [2, 3, 1]
    assert films["/films/notes.txt"]["film_id"] is None
    assert films["/films/four.mp4"]["reason"] == "no_sequence"
    three = films["/films/three.mp4"]
    assert (three["reason"], three["num_sequences"]) == ("no_sequence_left", 1)
    assert "no_label (1)" in three["detail"]
    two = films["/films/two.mp4"]
    assert (two["num_shots"], two["num_usable_shots"], two["num_kept_sequences"]) == (6, 5, 1)
    assert two["kept_s"] == 23.0


def test_a_film_is_kept_with_its_first_kept_sequence(tmp_path: Path) -> None:
    tables, _ = outcome(tmp_path)
    one = film("/films/a.mp4", "a" * 64)
    kept, lost = tables["sequence"][0], rejected(tables["sequence"][1])
    assert film_verdict(one, [lost, kept])["status"] == "kept"
    assert film_verdict(one, [lost])["status"] == "rejected"
    failed = {**one, "status": "failed", "stage": "scan", "reason": "torn", "detail": "x"}
    assert film_verdict(failed, [])["reason"] == "torn"


def test_rejected_sequences_are_told_everywhere_and_publish_nothing(made: Path) -> None:
    (lost,) = [s for s in read(made, "sequences") if s["status"] == "rejected"]
    assert (lost["stage"], lost["reason"], lost["num_clips"]) == ("captions", "no_label", 0)
    for table in ("clips", "subjects", "tracks", "recon_targets"):
        assert lost["sequence_id"] not in {r["sequence_id"] for r in read(made, table)}
    told = [r for r in read(made, "rejects") if r["id"] == lost["sequence_id"]]
    assert [(r["grain"], r["reason"], r["detail"]) for r in told] == [("sequence", "no_label", HOSTILE)]
    (span,) = [c for c in read(made, "coverage") if c["sequence_id"] == lost["sequence_id"]]
    assert (span["used_by"], span["reason"]) == (None, "no_label")
    assert not (made / "clips" / lost["sequence_id"]).exists()


def test_unusable_shots_are_rejects(made: Path) -> None:
    shots = [r for r in read(made, "rejects") if r["grain"] == "shot"]
    assert len(shots) == 4
    assert {(r["reason"], r["status"], r["end_s"]) for r in shots} == {("too_dark", "rejected", 4.0)}


def test_coverage_tiles_every_film_once(made: Path) -> None:
    spans: dict[str, list] = {}
    for span in read(made, "coverage"):
        assert span["used_by"] or span["reason"]
        spans.setdefault(span["film_id"], []).append((span["start_s"], span["end_s"]))
    assert len(spans) == 4
    for tiles in spans.values():
        assert tiles[0][0] == 0.0
        assert tiles[-1][1] == 30.0
        assert all(a[1] == b[0] for a, b in itertools.pairwise(tiles))


def test_a_film_that_failed_before_packing_is_covered_by_its_reason(tmp_path: Path) -> None:
    tables, store = outcome(tmp_path / ".work")
    bad = bad_film("/films/bad.mp4", film_hash="5" * 64, reason="torn") | {"stream": stream(30.0)}
    publish({**tables, "film": [*tables["film"], bad]}, store, tmp_path, FACTS)
    (span,) = [c for c in read(tmp_path, "coverage") if c["film_id"] == bad["film_id"]]
    assert (span["start_s"], span["end_s"], span["reason"]) == (0.0, 30.0, "torn")


def test_clips_subjects_and_targets_join(made: Path) -> None:
    clips = {c["clip_id"]: c for c in read(made, "clips")}
    assert len(clips) == 8
    subjects = {s["subject_id"]: s for s in read(made, "subjects")}
    for target in read(made, "recon_targets"):
        assert clips[target["clip_id"]]["sequence_id"] == target["sequence_id"]
        assert subjects[target["subject_id"]]["label"] == "[Person A]"
        assert (made / target["image_path"]).read_bytes().startswith(b"picture")
    for clip in clips.values():
        data = (made / clip["video_path"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == clip["sha256"]
        assert clip["caption"].startswith("global caption: [Person A]: ")
    places = sorted(c["clip_index"] for c in clips.values() if c["film_id"] == GOOD)
    assert places == [0, 1, 3, 4], "context keeps its place but is no clip"
    fade = next(c for c in clips.values() if c["film_id"] == GOOD and c["clip_index"] == 3)
    assert fade["transition_in"] == "cut"


def test_tracks_are_boxes_of_subjects_in_both_frames_of_reference(made: Path) -> None:
    boxes = [t for t in read(made, "tracks") if t["film_id"] == GOOD]
    assert len(boxes) == 20, "the track that belongs to no subject is left out"
    assert boxes == sorted(boxes, key=lambda b: (b["subject_id"], b["frame"]))
    assert {(b["x"] - b["cropped_x"], b["y"] - b["cropped_y"]) for b in boxes} == {(100.0, 60.0)}


def test_captions_count_every_request(made: Path) -> None:
    assert len(read(made, "captions")) == 6
    assert [c["call_index"] for c in read(made, "captions")] == [0, 1] * 3


def test_models_of_a_sequence_name_every_part(made: Path) -> None:
    parts = [m["part"] for m in read(made, "sequences")[0]["models"]]
    assert parts == ["shots", "aesthetic", "detect", "captions"]


def test_aesthetic_scores_of_shots_and_sequences(made: Path) -> None:
    assert [s["aesthetic"] for s in read(made, "shots") if s["film_id"] == GOOD] == [
        None,
        4.5,
        5.0,
        5.5,
        None,
        6.0,
    ]
    assert read(made, "sequences")[0]["aesthetic"] == 5.25
    assert "5.25" in (made / "review" / f"{GOOD}.html").read_text()


def test_a_null_key_is_a_bug(tmp_path: Path) -> None:
    rows = [{"film_id": None, "start_s": 0.0, "end_s": 1.0}]
    with pytest.raises(ValueError, match=r"coverage\.film_id is a key"):
        write_table(tmp_path / "coverage.parquet", TABLES["coverage"], row_batches(rows, TABLES["coverage"]))


# -- equal content, equal bytes -----------------------------------------------------------------


def test_same_rows_in_any_order_give_the_same_bytes(made: Path, tmp_path: Path) -> None:
    tables, store = outcome(tmp_path / ".work")
    shuffler = random.Random(3)
    for rows in tables.values():
        shuffler.shuffle(rows)
    report = publish(tables, store, tmp_path, FACTS)
    assert report.version == (made / "current").readlink().name
    assert content(tmp_path / "current") == content(made / "current")


def test_run_facts_do_not_change_the_version(made: Path, tmp_path: Path) -> None:
    tables, store = outcome(tmp_path / ".work")
    report = publish(tables, store, tmp_path, {**FACTS, "machine": "another", "seconds": {"scan": 3.5}})
    assert content(tmp_path / "current") == content(made / "current")
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["seconds"] == {"scan": 3.5}
    assert run["content_digest"] == report.digest
    assert run["counts"]["films"] == {"found": 6, "kept": 2, "rejected": 3, "failed": 1}


def test_report_tells_what_a_summary_needs(tmp_path: Path) -> None:
    report = published(tmp_path)
    assert report.counts == {
        "films": {"kept": 2, "rejected": 3, "failed": 1},
        "shots": {"kept": 20, "rejected": 4, "failed": 0},
        "sequences": {"kept": 2, "rejected": 1, "failed": 0},
    }
    assert all(path.exists() for path in report.paths.values())
    lost = {film["path"]: film["reason"] for film in report.films if film["status"] != "kept"}
    assert lost["/films/four.mp4"] == "no_sequence"


def test_changed_content_changes_the_version(made: Path, tmp_path: Path) -> None:
    tables, store = outcome(tmp_path / ".work")
    tables["sequence"][0]["story_caption"] = "Another story."
    publish(tables, store, tmp_path, FACTS)
    assert (tmp_path / "current").readlink() != (made / "current").readlink()


# -- versions -----------------------------------------------------------------------------------


def test_publishing_again_changes_nothing(tmp_path: Path) -> None:
    first = published(tmp_path)
    before = content(tmp_path / "current")
    again = published(tmp_path)
    assert (first.changed, again.changed) == (True, False)
    assert content(tmp_path / "current") == before
    assert [p.name for p in (tmp_path / "versions").iterdir()] == [first.version]


def test_publishing_again_heals_a_damaged_version(tmp_path: Path) -> None:
    published(tmp_path)
    before = content(tmp_path / "current")
    (tmp_path / "review" / "index.html").write_text("gone")
    (tmp_path / "tables" / "films.parquet").unlink()
    (tmp_path / "current" / "stray.txt").write_text("?")
    published(tmp_path)
    assert content(tmp_path / "current") == before


def test_one_version_back_is_kept_for_its_readers(tmp_path: Path) -> None:
    tables, store = outcome(tmp_path / ".work")
    versions = []
    for story in "abc":
        tables["sequence"][0]["story_caption"] = story
        versions.append(publish(tables, store, tmp_path, FACTS).version)
        assert (tmp_path / "current").resolve().name == versions[-1]
    assert sorted(p.name for p in (tmp_path / "versions").iterdir()) == sorted(versions[1:])


def test_a_stopped_publication_leaves_the_set_before(tmp_path: Path) -> None:
    published(tmp_path)
    before = content(tmp_path / "current")
    tables, store = outcome(tmp_path / ".work")
    tables["sequence"][0]["story_caption"] = "Another story."
    store.path(tables["sequence"][1]["clip_files"][0]["video"]).unlink()
    with pytest.raises(StopRun, match=r"00\.mp4 is missing"):
        publish(tables, store, tmp_path, FACTS)
    assert content(tmp_path / "current") == before
    assert len(list((tmp_path / "versions").iterdir())) == 1


def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    left = tmp_path / "versions" / ".staging" / "tables"
    left.mkdir(parents=True)
    (left / "films.parquet").write_bytes(b"half")
    (tmp_path / "versions" / ".gone-1" / "clips").mkdir(parents=True)
    report = published(tmp_path)
    assert [p.name for p in (tmp_path / "versions").iterdir()] == [report.version]


def test_media_are_links_or_copies(tmp_path: Path, monkeypatch) -> None:
    published(tmp_path)
    tables, store = outcome(tmp_path / ".work")
    kept = store.path(tables["sequence"][1]["clip_files"][0]["video"])
    clip = next((tmp_path / "clips").glob(f"{GOOD}*/00.mp4"))
    assert clip.read_bytes() == kept.read_bytes()

    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "another file system")

    monkeypatch.setattr(os, "link", refuse)
    report = publish(tables, store, tmp_path / "elsewhere", FACTS)
    copy = next((report.output / "clips").glob(f"{GOOD}*/00.mp4"))
    assert copy.read_bytes() == kept.read_bytes()
    assert copy.stat().st_nlink == 1


def test_files_of_somebody_else_are_not_touched(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(StopRun, match=r"README\.md is in the way"):
        published(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_full_disk_is_one_clear_line(tmp_path: Path, monkeypatch) -> None:
    published(tmp_path)
    before = content(tmp_path / "current")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(publishing, "write_card", full)
    with pytest.raises(StopRun, match="disk full"):
        published(tmp_path)
    assert content(tmp_path / "current") == before


def test_a_sequence_of_another_film_does_not_leak(tmp_path: Path) -> None:
    tables, store = outcome(tmp_path / ".work")
    extra = film("/films/five.mp4", "5" * 64)
    tables["film"].append(extra)
    tables["sequence"].append(sequence(extra, store))
    publish(tables, store, tmp_path, FACTS)
    per_film = [(c["film_id"], c["sequence_id"]) for c in read(tmp_path, "clips")]
    assert all(sequence_id.startswith(film_id) for film_id, sequence_id in per_film)
    assert len(per_film) == 12
