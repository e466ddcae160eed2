"""Film rows with shots and scores, made up to order: what quality, filters and packing work on."""

from __future__ import annotations

import numpy as np

from curation import ids
from curation.engine.stage import KEPT

GOOD = {
    "luma_mean": 100.0,
    "luma_p90": 180.0,
    "contrast": 45.0,
    "dark_share": 0.0,
    "bright_share": 0.0,
    "sharpness": 120.0,
    "motion": 12.0,
    "shake": 0.002,
    "freeze_share": 0.0,
    "flicker": 0.3,
    "bar_top": 0,
    "bar_bottom": 0,
    "bar_left": 0,
    "bar_right": 0,
    "corrupt_share": 0.0,
    "text_free_share": 1.0,
    "phash": [],
    "phash_end": [],
}
FPS = 24


def stream(duration_s, *, width=864, height=486):
    return {
        "stream_index": 0,
        "width": width,
        "height": height,
        "rotation": 0,
        "sar_num": 1,
        "sar_den": 1,
        "time_base_num": 1,
        "time_base_den": FPS,
        "first_pts": 0,
        "fps": float(FPS),
        "vfr": False,
        "interlaced": False,
        "bit_depth": 8,
        "codec": "h264",
        "pix_fmt": "yuv420p",
        "container": "mp4",
        "num_packets": round(duration_s * FPS),
        "duration_s": duration_s,
    }


def film(lengths_s, *, name="film", gaps_s=None, transitions=None, scores=None, **size):
    """A kept film row with one shot per length; `gaps_s[i]` lies before shot i."""
    film_id = ids.film_id((name.encode().hex() + "0" * 64)[:64])
    gaps_s = gaps_s or [0.0] * len(lengths_s)
    shots, at = [], 0
    for i, (length, gap) in enumerate(zip(lengths_s, gaps_s, strict=True)):
        start = at + round(gap * FPS)
        at = start + round(length * FPS)
        shots.append(
            {
                "shot_id": ids.shot_id(film_id, start, at),
                "shot_index": i,
                **{"start_pts": start, "start_frame": start, "start_s": start / FPS},
                **{"end_pts": at, "end_frame": at, "end_s": at / FPS},
                "transition_in": (transitions or {}).get(i, "cut" if i else "start"),
                "transition_out": "cut",
                "confidence": 1.0,
            }
        )
    return {
        "film_id": film_id,
        "path": f"/films/{name}.mp4",
        "licence": "CC0",
        "status": KEPT,
        "stage": None,
        "reason": None,
        "detail": None,
        "stream": stream(at / FPS, **size),
        "segments": [{"index": 0, "start_pts": 0, "end_pts": None}],
        "signals": ["scan/00/x/signals.npz"],
        "title_texts": ["titles/00/x/title_text.parquet"],
        "shots": shots,
        "shot_scores": [{**GOOD, **((scores or {}).get(i, {}))} for i in range(len(shots))],
        "aesthetics": [None] * len(shots),
        "copies": [],
    }


def usable(row, bad=None):
    """The row with verdicts; `bad` maps shot indices to reasons."""
    bad = bad or {}
    verdicts = [
        {"usable": i not in bad, "reason": bad.get(i), "detail": None} for i in range(len(row["shots"]))
    ]
    return {**row, "shot_verdicts": verdicts}


def random_hashes(rng, count):
    """`count` hashes of one shot: a picture that slowly changes."""
    bits = rng.integers(0, 2, 128)
    out = []
    for _ in range(count):
        bits = flipped(rng, bits, 12)
        out.append(bits)
    return [to_hex(b) for b in out]


def flipped(rng, bits, count):
    changed = bits.copy()
    changed[rng.choice(128, count, replace=False)] ^= 1
    return changed


def noisy(rng, hashes, count):
    """Copies of hashes with `count` bits wrong in each."""
    return [
        None
        if h is None
        else to_hex(flipped(rng, np.unpackbits(np.frombuffer(bytes.fromhex(h), np.uint8)), count))
        for h in hashes
    ]


def to_hex(bits):
    return np.packbits(bits).tobytes().hex()
