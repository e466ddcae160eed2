"""Made-up films with copies of each other's shots, and what becomes of these."""

import pyarrow as pa

from curation import rows
from curation.stages.duplicates import Duplicates
from curation.stages.filters import Filters
from tests.curation.judged_film import film, noisy, random_hashes


def looks(rng, length_s):
    """Hashes of a shot of that length from both ends, as scores."""
    count = max(0, int(length_s / 0.5))
    hashes = random_hashes(rng, count)
    return {"phash": hashes[:16], "phash_end": hashes[::-1][:16]}


def hashed_film(rng, lengths, **kwargs):
    return film(lengths, scores={i: looks(rng, s) for i, s in enumerate(lengths)}, **kwargs)


def copy_of(rng, row, chosen, *, bits=6, **kwargs):
    """A film made of copies of some shots of another, each hash `bits` off."""
    lengths = [row["shots"][i]["end_s"] - row["shots"][i]["start_s"] for i in chosen]
    scores = {
        k: {end: noisy(rng, row["shot_scores"][i][end], bits) for end in ("phash", "phash_end")}
        for k, i in enumerate(chosen)
    }
    return film(lengths, scores=scores, **kwargs)


LENIENT = Filters(max_corrupt_share=None)


def settled(*films, filters=LENIENT):
    """The film rows as they stand after both steps."""
    out = filters.fold(Duplicates().fold(list(films)))
    for column, form in (("copies", rows.COPY), ("duplicates", rows.DUPLICATE)):
        pa.array([f[column] for f in out], pa.list_(form))
    return out


def found(*films, filters=LENIENT):
    """{(film, shot index): (film, shot index) it copies}."""
    place = {s["shot_id"]: (f["path"][7:-4], s["shot_index"]) for f in films for s in f["shots"]}
    out = settled(*films, filters=filters)
    return {place[d["shot_id"]]: place[d["duplicate_of"]] for f in out for d in f["duplicates"] or []}


def fates(*films, filters=LENIENT):
    """(film, shot index) -> why it is rejected, or None."""
    return {
        (f["path"][7:-4], shot["shot_index"]): verdict["reason"]
        for f in settled(*films, filters=filters)
        for shot, verdict in zip(f["shots"], f["shot_verdicts"], strict=True)
    }


def blurred(row, *chosen):
    """The film with those shots below the default threshold."""
    for i in chosen:
        row["shot_scores"][i]["sharpness"] = 2.0
    return row
