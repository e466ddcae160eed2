"""The optional tier: which frames are looked at, what becomes of the scores, and what it costs when off."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from curation import rows
from curation.engine.explain import explain
from curation.engine.runner import run
from curation.engine.stage import KEPT, VERDICT, plan
from curation.engine.store import Store, canonical
from curation.models import aesthetic_scorer
from curation.stages import aesthetic
from curation.stages.aesthetic import Aesthetic, score_shots
from curation.video.decode import decode_span
from curation.video.probe import probe
from curation.weights import WeightsMissing
from tests.curation.judged_film import GOOD
from tests.curation.tiny_film import texture, write_film
from tests.support import scratch

SPANS = [(0, 40), (40, 50), (50, 96)]
"""Shots as half-open spans of frames; key frames are 0, 12, 24, 36 in the first, 48, and 60, 72, 84."""


@pytest.fixture(scope="module")
def film_row(tmp_path_factory):
    """A film row with three shots, black bars above and below; every frame has its own luma."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    pictures = []
    for k in range(96):
        picture = np.clip(texture(1).astype(int) + k, 0, 255).astype(np.uint8)
        picture[:16], picture[-16:] = 0, 0
        pictures.append(picture)
    x264 = "keyint=12:min-keyint=12:scenecut=0:bframes=2"
    write_film(path, pictures, options={"x264-params": x264})
    stream, _, _ = probe(str(path))
    pts = [f.pts for f in decode_span(str(path), stream, 0, None)]
    pts.append(2 * pts[-1] - pts[-2])
    shots = [
        {"shot_id": f"s{i}", "shot_index": i, "start_frame": a, "end_frame": b}
        | {"start_pts": pts[a], "end_pts": pts[b], "start_s": a / 24, "end_s": b / 24}
        | {"transition_in": "cut", "transition_out": "cut", "confidence": 1.0}
        for i, (a, b) in enumerate(SPANS)
    ]
    score = {**GOOD, "bar_top": 16, "bar_bottom": 16, "phash": [], "phash_end": []}
    return {
        "film_id": "f1", "path": str(path), "stream": stream, "shots": shots, "shot_scores": [score] * 3,
        "pts": pts,
    }  # fmt: skip


class Recorder:
    """Remembers the pictures and tells them apart by their mean."""

    def __init__(self):
        self.seen = []

    def scores(self, inputs):
        self.seen += inputs
        return [float(one.mean()) for one in inputs]


@pytest.fixture
def frames_seen(film_row, monkeypatch, tmp_path):
    """A function of the number of pictures: frames whose pictures were scored, scores, counters."""
    taken = []
    true = aesthetic.frames_at

    def spied(*args):
        for position, frame in true(*args):
            taken.append(film_row["pts"].index(frame.pts))
            yield position, frame

    monkeypatch.setattr(aesthetic, "frames_at", spied)

    def look(pictures):
        recorder, folder = Recorder(), scratch(tmp_path)
        scores = score_shots(recorder, film_row, pictures, folder, {})
        return taken, scores, recorder.seen, folder.counters

    return look


def test_a_shot_is_judged_by_its_key_frame_nearest_the_middle(frames_seen):
    taken, scores, seen, counters = frames_seen(1)

    assert taken == [24, 48, 72]
    assert scores == [round(float(one.mean()), 3) for one in seen]
    assert scores[0] < scores[1] < scores[2], "later frames are brighter"
    assert counters["decoded_frames"] == 3
    assert counters["decoded_s"] == pytest.approx(3 / 24)


def test_the_bars_are_not_looked_at(frames_seen):
    _, _, seen, _ = frames_seen(1)

    assert all(one.shape == (224, 224, 3) for one in seen)
    assert min(one.min() for one in seen) > 40, "black bars are not in the picture"


def test_several_pictures_are_averaged(frames_seen):
    taken, scores, seen, _ = frames_seen(2)

    assert taken == [12, 24, 48, 60, 84]
    assert scores[1] == round(float(seen[2].mean()), 3), "one key frame is judged once"
    assert scores[2] == pytest.approx((seen[3].mean() + seen[4].mean()) / 2, abs=1e-3)


def test_what_was_scored_before_a_run_died_is_not_scored_again(film_row, monkeypatch, tmp_path):
    monkeypatch.setattr(aesthetic, "SHOTS_AT_A_TIME", 1)

    class Dies(Recorder):
        def scores(self, inputs):
            if len(self.seen) == 2:
                raise KeyboardInterrupt
            return super().scores(inputs)

    whole = score_shots(Recorder(), film_row, 1, scratch(tmp_path / "whole"), {})
    with pytest.raises(KeyboardInterrupt):
        score_shots(Dies(), film_row, 1, scratch(tmp_path), {})
    rest, folder = Recorder(), scratch(tmp_path)

    assert score_shots(rest, film_row, 1, folder, {}) == whole
    assert len(rest.seen) == 1
    assert folder.counters["decoded_frames"] == 3, "as if it had never died"


@pytest.mark.parametrize(
    ("pictures", "models", "bars", "number"),
    [(1, {}, {}, 0), (2, {}, {}, 5), (1, {"clip": "another"}, {}, 3), (1, {}, {"bar_top": 20}, 3)],
)
def test_what_is_remembered_depends_on_all_that_decides_it(
    film_row, tmp_path, pictures, models, bars, number
):
    score_shots(Recorder(), film_row, 1, scratch(tmp_path), {})
    again, row = Recorder(), {**film_row, "shot_scores": [{**one, **bars} for one in film_row["shot_scores"]]}

    score_shots(again, row, pictures, scratch(tmp_path), models)

    assert len(again.seen) == number


def test_a_shot_that_cannot_be_decoded_has_no_score(film_row, monkeypatch, tmp_path):
    monkeypatch.setattr(aesthetic, "frames_at", lambda *args: iter(()))
    assert score_shots(Recorder(), film_row, 1, scratch(tmp_path), {}) == [None] * 3


def test_off_gives_nulls_and_opens_nothing(film_row, tmp_path):
    stage = Aesthetic(model="off")
    made = stage.worker()({**film_row, "path": "/nowhere.mp4"}, scratch(tmp_path))

    assert made == {"aesthetics": [None] * 3, "aesthetic_models": []}
    assert (stage.fingerprint(), stage.deciding(), stage.settled()) == ({}, {"model": "off"}, (stage, ""))
    assert not stage.occupies().actors


def test_auto_decides_once_and_is_silent_where_nothing_is_here(monkeypatch, tmp_path):
    monkeypatch.setenv("MEMENTO_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(aesthetic_scorer, "available", lambda package: True)
    stage, note = Aesthetic().settled()

    assert stage == Aesthetic(model="off")
    assert note == ""
    with pytest.raises(WeightsMissing, match="no such folder"):
        Aesthetic(model=str(tmp_path / "none")).settled()


@pytest.mark.parametrize(("change", "said"), [({"pictures": 0}, "at least 1"), ({"model": ""}, "is empty")])
def test_impossible_settings(change, said):
    with pytest.raises(ValueError, match=said):
        Aesthetic(**change)


# -- with a model --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from tests.curation.tiny_clip import save_clip

    return save_clip(tmp_path_factory.mktemp("clip"))


def test_scores_are_kept_by_content(film_row, clip, tmp_path):
    """Made once; the same again byte for byte; another folder with the same weights changes nothing."""
    source = pa.schema(
        [
            *(*rows.SOURCE, *rows.IDENTITY, *rows.INGEST),
            ("shots", pa.list_(rows.SHOT)),
            ("shot_scores", pa.list_(rows.SHOT_SCORES)),
        ]
    )
    row = {**dict.fromkeys([*source.names, *VERDICT.names]), **film_row, "status": KEPT}
    del row["pts"]

    def made(store, **settings):
        planned = plan([Aesthetic(**settings)], source)
        runs = {reason: n for told in explain(planned, [row], store) for reason, n in told.runs.items()}
        outcome = run(planned, [row], store, on_ray=False)
        ((one,),) = outcome.tables.values()
        return one, outcome.made["aesthetic"], runs

    store = Store(tmp_path / "one")
    first, worked, why = made(store, model=str(clip))
    scores, (model,) = first["aesthetics"], first["aesthetic_models"]
    assert (worked, why) == (1, {"new": 1})
    assert len(set(scores)) == 3
    assert all(round(s, 3) == s for s in scores)
    assert model["model_id"].endswith(" + sa_0_4_vit_l_14_linear")
    assert (model["part"], model["tier"], model["revision"][:7]) == ("aesthetic", "full", "sha256-")

    again, worked, why = made(store, model=str(clip))
    assert (worked, why) == (0, {})
    fresh, worked, _ = made(Store(tmp_path / "two"), model=str(clip))
    assert worked == 1
    assert canonical(again) == canonical(fresh) == canonical(first)

    moved = tmp_path / clip.name
    moved.symlink_to(clip)
    assert made(store, model=str(moved))[1] == 0
    assert made(store, model=str(clip), pictures=2)[2] == {"setting aesthetic.pictures: 1 -> 2": 1}
    off, _, why = made(store, model="off")
    assert (off["aesthetics"], why) == ([None] * 3, {}), "nothing to do, and nothing waits for it"
    assert made(store, model=str(clip), pictures=2)[1] == 0, "on again: the kept result"


def test_the_note_names_the_model(clip, monkeypatch):
    monkeypatch.chdir(clip.parent)
    stage, note = Aesthetic(model=f"./{clip.name}").settled()
    assert stage.model == str(clip)
    assert note == f"aesthetic scores by {clip.name} and LAION's linear head"
    assert dataclasses.replace(stage, pictures=3).deciding() == {"model": "clip-l14", "pictures": 3}
