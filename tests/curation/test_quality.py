import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation import rows
from curation.engine.store import canonical
from curation.shots.signals import Signals
from curation.stages.quality import Quality, score_shots
from tests.curation.judged_film import film
from tests.support import scratch

FPS = 24


def signals_of(thumbs, *, content=5.0, sharpness=100.0, bars=(0, 0, 0, 0), corrupt=(), first_frame=0):
    """Signals of pictures; key statistics every twelve frames of the film."""
    n = len(thumbs)
    frames = np.arange(first_frame, first_frame + n)
    keys = np.flatnonzero(frames % 12 == 0)
    flat = thumbs.reshape(n, -1).astype(np.float32)
    luma = np.stack([flat.mean(1), flat.std(1), np.percentile(flat, 90, axis=1)], axis=1)
    return Signals(
        pts=frames.astype(np.int64),
        content=np.full((n, 3), content, np.float32),
        luma=luma.astype(np.float32),
        thumbs_u8=thumbs,
        corrupt=np.isin(frames, corrupt),
        key_frame=keys,
        sharpness=np.full(len(keys), sharpness, np.float32),
        bars=np.tile(np.array(bars, np.int16), (len(keys), 1)),
        key_slot=frames[keys] // 12,
        edges_hsv=np.zeros((2, 36, 64, 3), np.uint8),
    )


def still_text(second, box=(None,) * 4):
    """A still of the made-up film, with at most one box of text."""
    place = {"slot": second, "pts": second * FPS, "score": 0.9 if box[0] else None}
    return {**place, **dict(zip(("x", "y", "width", "height"), box, strict=True))}


TEXTS = [still_text(k, (300.0, 200.0, 240.0, 30.0) if k in (1, 4, 5) else (None,) * 4) for k in range(8)]
"""A line in the middle that comes and goes within a second, and one that stands through half a shot."""


def noise(count, seed=0, low=0, high=256):
    return np.random.default_rng(seed).integers(low, high, (count, 18, 32), dtype=np.uint8)


def still(count, seed=0):
    return np.repeat(noise(1, seed), count, axis=0)


@pytest.fixture
def scored(tmp_path):
    """A film of three shots - moving, frozen, dark - in two segments, scored."""
    parts = [noise(72), still(72, 1), noise(48, 2, 0, 8)]
    thumbs = np.concatenate(parts)
    whole = signals_of(thumbs, bars=(58, 58, 0, 0), corrupt=[150])
    frozen = np.arange(len(thumbs))
    whole.content[(frozen > 72) & (frozen < 144)] = 0.0
    cut = 100
    folder = scratch(tmp_path, "scan")
    refs = []
    for i, (start, end) in enumerate([(0, cut), (cut, len(thumbs))]):
        part = whole.span(start, end)
        part.save(folder.path(f"{i}.npz"))
        refs.append(folder.ref(f"{i}.npz"))
    pq.write_table(pa.Table.from_pylist(TEXTS, schema=rows.STILL_TEXT), folder.path("text.parquet"))
    folder.commit()
    row = film([3, 3, 2], width=848, height=480)
    row["signals"] = refs
    row["title_texts"] = [folder.ref("text.parquet")]
    made = Quality().worker()({c: row[c] for c in Quality.reads}, scratch(tmp_path, "quality"))
    return row, whole, made


def test_scores_align_with_the_shots(scored):
    _, _, made = scored
    moving, frozen, dark = made["shot_scores"]

    assert [s["freeze_share"] for s in made["shot_scores"]] == [0.0, 1.0, 0.0]
    assert frozen["motion"] == 0.0 < moving["motion"]
    assert (dark["dark_share"], moving["dark_share"]) == (1.0, 0.0)
    assert dark["luma_p90"] < 8 < moving["luma_p90"]
    assert [s["corrupt_share"] for s in made["shot_scores"]] == [0.0, 0.0, pytest.approx(1 / 48, abs=1e-6)]
    assert [len(s["phash"]) for s in made["shot_scores"]] == [6, 6, 4]
    assert dark["phash"] == [None] * 4
    assert moving["bar_top"] == dark["bar_bottom"] == 58
    assert moving["sharpness"] == 100.0
    assert moving["text_free_share"] == dark["text_free_share"] == 1.0


def test_segments_change_nothing(scored):
    row, whole, made = scored

    assert made["shot_scores"] == score_shots(whole, row["stream"], row["shots"], TEXTS)


def test_rows_fit_the_schema_and_hold_no_nan(scored):
    _, _, made = scored

    table = pa.Table.from_pylist([made], schema=Quality.writes)
    assert set(made["shot_scores"][0]) == {f.name for f in rows.SHOT_SCORES}
    assert table.to_pylist()[0]["shot_scores"][0]["bar_top"] == 58
    assert json.loads(canonical(made)) == made
    numbers = [v for s in made["shot_scores"] for v in s.values() if isinstance(v, float)]
    assert all(math.isfinite(v) for v in numbers)


def test_bars_belong_to_their_shot():
    row = film([2, 2, 2, 2], width=848, height=480)
    signals = signals_of(noise(192))
    pillars = (signals.key_frame // 48) % 2 == 1
    signals.bars[pillars] = (0, 0, 106, 106)

    scores = score_shots(signals, row["stream"], row["shots"], [])

    assert [s["bar_left"] for s in scores] == [0, 106, 0, 106]
    assert [s["bar_top"] for s in scores] == [0, 0, 0, 0]


def test_tiny_shots_have_nulls():
    row = film([1, 1 / FPS, 2 / FPS])
    signals = signals_of(noise(27))
    signals.content[0] = np.nan

    first, one, two = score_shots(signals, row["stream"], row["shots"], [])

    assert one["luma_mean"] is not None
    unknown = ("motion", "shake", "freeze_share", "flicker", "text_free_share")
    assert [one[name] for name in unknown] == [None] * 5
    assert two["sharpness"] is None
    assert two["bar_top"] == 0, "from the rest of the film"
    assert one["phash"] == one["phash_end"] == []
    assert first["freeze_share"] == 0.0


def test_a_film_of_black():
    row = film([2])
    black = signals_of(np.zeros((48, 18, 32), np.uint8), bars=(486, 486, 864, 864), content=0.0)

    (score,) = score_shots(black, row["stream"], row["shots"], [])

    assert [score[f"bar_{side}"] for side in ("top", "bottom", "left", "right")] == [None] * 4
    assert (score["luma_p90"], score["freeze_share"], score["phash"]) == (0.0, 1.0, [None] * 4)


def test_an_hour_without_a_cut_needs_little_memory():
    import tracemalloc

    count = 20_000
    row = film([count / FPS])
    signals = signals_of(noise(count))
    tracemalloc.start()
    score_shots(signals, row["stream"], row["shots"], [])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 4 * signals.thumbs_u8.nbytes + 30e6
