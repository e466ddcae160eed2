"""What run.json says of decoding, and what a run says of settings without effect."""

from __future__ import annotations

import pytest

from curation.engine.runner import Outcome
from pipelines.curate import resolve
from pipelines.run_record import decode_passes
from tests.support import REPOSITORY

ORDER = ["scan", "shots", "aesthetic", "analyse", "crop", "export", "captions"]


def outcome(lost_at: str = "crop", **decoded_s: float) -> Outcome:
    """100 s of film, of which a sequence of 40 s was exported and one of 10 s rejected at a stage."""
    film = {"stream": {"duration_s": 100.0}, "status": "kept"}
    kept = {"start_s": 0.0, "end_s": 40.0, "status": "kept"}
    lost = {"start_s": 50.0, "end_s": 60.0, "status": "rejected", "stage": lost_at}
    counters = {name: {"decoded_s": seconds} for name, seconds in decoded_s.items()}
    return Outcome(tables={"film": [film], "sequence": [kept, lost]}, counters=counters)


def test_frames_for_aesthetic_scores_are_decoded_of_the_whole_film():
    passes = decode_passes(outcome(scan=100.0, aesthetic=2.0, analyse=50.0, export=40.0), ORDER)

    assert passes["not_exported"] == 1.02
    assert passes["exported"] == pytest.approx(3.02)
    assert passes["by_stage"] == {"scan": 1.0, "aesthetic": 0.02, "analyse": 1.0, "export": 1.0}


def test_what_was_decoded_of_a_sequence_that_failed_later_is_divided_by_it_too():
    passes = decode_passes(outcome("export", scan=100.0, analyse=50.0, export=50.0), ORDER)

    assert passes["by_stage"] == {"scan": 1.0, "analyse": 1.0, "export": 1.0}
    assert passes["exported"] == 3.0


def test_stages_that_decoded_nothing_are_not_listed():
    passes = decode_passes(outcome(scan=100.0, export=40.0, aesthetic=0.0), ORDER)

    assert passes["by_stage"] == {"scan": 1.0, "export": 1.0}
    assert (passes["not_exported"], passes["exported"]) == (1.0, 2.0)


def test_a_network_that_looks_for_cuts_decodes_the_whole_film_too():
    assert decode_passes(outcome(scan=100.0, shots=100.0, export=40.0), ORDER)["exported"] == 3.0


def test_nothing_to_divide_by():
    passes = decode_passes(Outcome())
    assert (passes["not_exported"], passes["exported"], passes["by_stage"]) == (None, None, {"scan": None})


def test_a_threshold_on_scores_that_are_not_made_is_told(tmp_path):
    film = tmp_path / "film.mp4"
    film.touch()

    def notes(**settings):
        stages = {"filters": settings, "aesthetic": {"model": "off"}}
        return resolve(
            [str(film)], REPOSITORY / "datasets.yaml", output=tmp_path / "out", settings=stages
        ).notes

    told = "filters.min_aesthetic 5 has no effect: there are no aesthetic scores"
    assert notes(min_aesthetic=5.0)[-1] == told
    assert told not in notes()
