"""Titles and cards are scored before packing; subtitles and writing of the scene are not taken for them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from curation import rows
from curation.framing.overlays import Inside
from curation.shots.scan_stills import Still, StillSettings, load_stills, save_stills, still_picture
from curation.shots.signals import Signals
from curation.shots.title_scores import CHUNK, first_of_slots, text_free_share
from curation.stages.filters import Filters
from curation.stages.quality import score_shots
from curation.stages.scan import Scan, scan
from curation.stages.titles import Titles
from curation.video.probe import probe
from tests.curation.test_quality import noise, signals_of
from tests.footage import add_video, film, pictures
from tests.footage import encode as encode_pictures
from tests.support import scratch, shared

SIZE, SECONDS, FPS = (360, 640), 6, 24
FONT = cv2.FONT_HERSHEY_DUPLEX


def write(picture, text, at, scale=1.0, colour=(255, 255, 255)):
    cv2.putText(picture, text, at, FONT, scale, colour, max(1, round(2 * scale)), cv2.LINE_AA)
    return picture


def title(k, picture):
    """Big letters that fade in over the moving picture and out again."""
    drawn = write(picture.copy(), "THE LONG", (150, 170), 2.0)
    drawn = write(drawn, "WINTER", (190, 240), 2.0)
    opacity = float(np.clip(min(k - 30, 114 - k) / 18, 0, 1))
    return cv2.addWeighted(drawn, opacity, picture, 1 - opacity, 0)


def card(k, picture):
    """An old intertitle: three lines on dark grey, with grain, and the frame weaves in the gate."""
    rng = np.random.default_rng(k)
    plain = np.full((*SIZE, 3), 40, np.uint8)
    for i, line in enumerate(("When morning came,", "the harbour lay", "empty and still.")):
        write(plain, line, (150 + 20 * i, 140 + 45 * i), 1.1, (215, 215, 215))
    woven = np.roll(plain, tuple(rng.integers(-1, 2, 2)), (0, 1))
    return np.clip(woven + rng.normal(0, 7, (*SIZE, 1)), 0, 255).astype(np.uint8)


def subtitle(k, picture):
    return write(picture, "We should never have come", (130, 335), 0.8) if 20 < k < 110 else picture


def sign(k, picture):
    """Writing of the scene: it moves with the camera."""
    return write(picture, "HOTEL", (max(-300, 420 - 2 * k), 180), 1.6)


SHOTS = {
    "plain": lambda k, picture: picture,
    "title": title,
    "card": card,
    "subtitle": subtitle,
    "sign": sign,
}


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """The scores of a film of the shots above, by name."""
    import av

    folder = tmp_path_factory.mktemp("titles")
    path = folder / "film.mp4"

    def frames():
        for seed, paint in enumerate(SHOTS.values()):
            for k, picture in enumerate(pictures(SECONDS * FPS, SIZE, seed=seed)):
                yield paint(k, picture)

    with av.open(str(path), "w") as container:
        encode_pictures(container, add_video(container, SIZE), frames())
    scores = score(path, [SECONDS * FPS] * len(SHOTS), folder)
    return dict(zip(SHOTS, scores, strict=True))


def score(path: Path, lengths, tmp_path):
    """`rows.SHOT_SCORES` of shots of known lengths in frames."""
    stream, segments, _ = probe(str(path), segment_s=4)
    texts, parts = [], []
    for segment in segments:
        row = {"film_id": "f", "path": str(path), "stream": stream, "segment": segment}
        folder = scratch(tmp_path, f"scan{segment['index']}")
        made = Scan().worker()(row, folder)
        folder.commit()
        parts.append(Signals.load(folder.open(made["signals"])))
        seen = scratch(tmp_path, f"titles{segment['index']}")
        found = Titles().worker()({"segment_id": "s", "stream": stream, "stills": made["stills"]}, seen)
        seen.commit()
        assert found["title_models"][0]["part"] == "titles"
        texts += pq.read_table(seen.open(found["title_texts"]), schema=rows.STILL_TEXT).to_pylist()
    signals = Signals.concat(parts)
    ends = np.cumsum(lengths)
    shots = [
        {
            **{"start_frame": int(e - n), "end_frame": int(e)},
            "start_pts": int(signals.pts[e - n]),
            "end_pts": int(signals.pts[e]) if e < len(signals) else int(signals.pts[-1]) + 1,
            "end_s": e / FPS,
        }
        for e, n in zip(ends, lengths, strict=True)
    ]
    return score_shots(signals, stream, shots, first_of_slots(texts))


@pytest.mark.parametrize("name", ["title", "card"])
def test_a_title_leaves_no_room(scored, name):
    assert scored[name]["text_free_share"] < Filters.min_text_free_share
    (fault, *_) = [f for f in Filters()._faults(scored[name]) if f[0] == "title_over_picture"]
    assert "text_free_share" in fault[1]


@pytest.mark.parametrize("name", ["plain", "subtitle", "sign"])
def test_other_shots_keep_theirs(scored, name):
    assert scored[name]["text_free_share"] > 0.6
    assert list(Filters().faults({"shot_scores": [scored[name]], "aesthetics": [None]})) == [None]


def test_writing_of_the_scene_takes_nothing_away(scored):
    assert scored["plain"]["text_free_share"] == scored["sign"]["text_free_share"] == 1.0
    assert scored["subtitle"]["text_free_share"] < 1.0


@pytest.mark.parametrize(
    ("name", "shots", "bad"),
    [
        ("films/sintel_letterbox_26s.mp4", [(0, 73), (73, 117)], []),
        ("clips/nasa_13013.mp4", [(0, 120), (150, 280)], []),
        ("films/bbb_486p_first300s.mp4", [(554, 751), (751, 1080)], [0]),
    ],
)
def test_real_films(name, shots, bad, tmp_path):
    path = shared(name)
    stream, _, _ = probe(str(path))
    tick = stream["time_base_den"] / stream["time_base_num"]
    start = stream["first_pts"] + int((shots[0][0] - 1) / stream["fps"] * tick) if shots[0][0] else None
    segment = {"index": 0, "start_pts": start or stream["first_pts"], "end_pts": None}
    last = shots[-1][1] / stream["fps"] * tick
    segment["end_pts"] = stream["first_pts"] + int(last)
    signals, tally = scan(str(path), stream, segment)
    folder = scratch(tmp_path, "scan")
    save_stills(folder.path("stills.parquet"), tally.stills)
    folder.commit()
    seen = scratch(tmp_path, "titles")
    row = {"segment_id": "s", "stream": stream, "stills": folder.ref("stills.parquet")}
    found = Titles().worker()(row, seen)
    seen.commit()
    texts = pq.read_table(seen.open(found["title_texts"])).to_pylist()
    whole = Inside(0, 0, stream["width"], stream["height"])
    for i, (first, end) in enumerate(shots):
        times = [stream["first_pts"] + round(k / stream["fps"] * tick) for k in (first, end)]
        mine = [t for t in texts if times[0] <= t["pts"] < times[1]]
        free = text_free_share(mine, signals, stream, whole)
        assert mine
        assert (free < Filters.min_text_free_share) == (i in bad)


# -- stills -------------------------------------------------------------------------------------


def test_segments_keep_the_stills_of_the_unsplit_scan(tmp_path):
    path = film(tmp_path / "film.mp4", count=130, options={"x264-params": "keyint=17:min-keyint=17"})
    stream, segments, _ = probe(str(path), segment_s=0.6)
    assert len(segments) > 5
    whole = {"index": 0, "start_pts": stream["first_pts"], "end_pts": None}
    _, one = scan(str(path), stream, whole)
    parts = [s for segment in segments for s in scan(str(path), stream, segment)[1].stills]
    rows_of = [{"slot": s.slot, "pts": s.pts, "image": s.image} for s in parts]
    assert len(parts) > len(one.stills) == 6
    assert [r["pts"] for r in first_of_slots(rows_of)] == [s.pts for s in one.stills]
    assert {r["image"] for r in first_of_slots(rows_of)} == {s.image for s in one.stills}


def test_no_stills_no_titles(tmp_path):
    path = film(tmp_path / "film.mp4", count=48)
    stream, segments, _ = probe(str(path))
    _, tally = scan(str(path), stream, segments[0], stills=StillSettings(still_slots=0))
    assert tally.stills == []
    assert text_free_share([], signals_of(noise(48)), stream, Inside(0, 0, 320, 180)) is None
    with pytest.raises(ValueError, match="still_side"):
        Scan(still_side=10)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_still_is_upright_full_range_and_small(turns, tmp_path):
    picture = cv2.resize(next(pictures(1)), (1290, 726))
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    limited = (16 + np.rot90(grey, -turns) * (219 / 255)).astype(np.uint8)
    image = still_picture(limited, is_full=False, quarter_turns=turns, side=288)
    save_stills(tmp_path / "stills.parquet", [Still(3, 77, image)])
    (still,) = load_stills(tmp_path / "stills.parquet")
    assert (still.slot, still.pts) == (3, 77)
    shown = still.picture()
    assert shown.shape == (181, 322, 3)
    wanted = cv2.resize(grey, (322, 181), interpolation=cv2.INTER_AREA)
    assert np.abs(shown[..., 0].astype(int) - wanted).mean() < 3


def test_an_hour_in_one_shot_is_judged_in_parts():
    count = 40 * CHUNK
    signals = signals_of(noise(48))
    stream = {"first_pts": 0, "time_base_num": 1, "time_base_den": FPS}
    stream |= {"width": 640, "height": 360, "sar_num": 1, "sar_den": 1}
    line = {"x": 150.0, "y": 140.0, "width": 340.0, "height": 40.0, "score": 0.9}
    empty = dict.fromkeys(rows.BOX_SCORE)
    drawn = range(30 * CHUNK + 10, 30 * CHUNK + 16)
    texts = [{"slot": k, "pts": k * FPS, **(line if k in drawn else empty)} for k in range(count)]
    inside = Inside(0, 0, 640, 360)
    assert text_free_share(texts, signals, stream, inside) < Filters.min_text_free_share
    assert text_free_share(texts[: 30 * CHUNK], signals, stream, inside) == 1.0
