"""Pictures of films, lost sequences and unusable shots, from what earlier stages kept; no film is decoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import pyarrow.parquet as pq

from curation.engine.stage import KEPT, Row
from curation.engine.store import Store
from curation.publishing.tables import World, proof_path

PER_FILM = 8
"""Pictures of a film on the first page; more where it has more sequences, each of which has one."""
SEQUENCES = 24
"""Sequences of a film with pictures on the first page, evenly spaced over all."""
LOST_PER_FILM = 3
"""Of these, so many at most were not kept, if there are enough others."""
PER_SEQUENCE = 6
"""Pictures of a sequence that was not kept, on the page of its film."""
UNUSABLE = 60
"""Pictures of unusable shots on the page of a film; the table of shots has all of them."""
CROP = "crop"  # the stage that rejects for text in the picture
TITLE = "title_over_picture"

T = TypeVar("T")


def spread(items: Sequence[T], number: int) -> list[T]:
    """At most `number` of the items, evenly spaced, first and last among them if there is more than one."""
    if len(items) <= number:
        return list(items)
    if number == 1:
        return [items[len(items) // 2]]
    return [items[i * (len(items) - 1) // (number - 1)] for i in range(number)]


def still_shape(stream: Row) -> float:
    """Width over height of a film's picture as it is meant to be seen."""
    return stream["width"] * stream["sar_num"] / (stream["height"] * stream["sar_den"])


def _percent(box: Row, stream: Row) -> tuple[float, float, float, float]:
    """x, y, width and height of a box in percent of the picture."""
    across, down = 100 / stream["width"], 100 / stream["height"]
    return box["x"] * across, box["y"] * down, box["width"] * across, box["height"] * down


def _texts(store: Store, ref: str | None) -> dict[int, list[Row]]:
    """The text boxes of a file by the timestamp of their picture."""
    found: dict[int, list[Row]] = {}
    for box in pq.read_table(store.path(ref)).to_pylist() if ref else ():
        if box["x"] is not None:
            found.setdefault(box["pts"], []).append(box)
    return found


def _surest(texts: dict[int, list[Row]], pts: int) -> float:
    """The score of the surest text in the picture at `pts`; 0 without any."""
    return max((box["score"] for box in texts.get(pts, ())), default=0.0)


# -- sequences that were not kept ---------------------------------------------------------------


def lost_stills(sequence: Row, store: Store) -> list[Row]:
    """Stills that show why a sequence was not kept, in the order of time.

    If the crop was the stage, those in which text was found most surely come first; others fill up evenly.

    Args:
        sequence: of any outcome; one that did not get to stills has none.
        store: where its stills and text boxes lie.

    Returns:
        Per still `src` (relative to the review), `image` (in the store), `time_s`, how sure a text in it is
        (`sure`), and `boxes`: the text found, as x, y, width and height in percent of the picture.
    """
    stills = sequence.get("stills") or []
    texts = _texts(store, sequence["text_boxes"]) if stills and sequence["stage"] == CROP else {}
    telling = [still for still in stills if still["pts"] in texts]
    telling.sort(key=lambda still: (-_surest(texts, still["pts"]), still["pts"]))
    chosen = telling[:PER_SEQUENCE]
    chosen += spread([still for still in stills if still not in chosen], PER_SEQUENCE - len(chosen))
    return [
        {
            "src": proof_path(sequence["sequence_id"], still["image"]),
            "image": still["image"],
            "time_s": still["time_s"],
            "sure": _surest(texts, still["pts"]),
            "boxes": [_percent(box, sequence["stream"]) for box in texts.get(still["pts"], ())],
        }
        for still in sorted(chosen, key=lambda still: still["pts"])
    ]


# -- shots: the small grey pictures of the scan ---------------------------------------------------


class ScanStills:
    """The scan's pictures of a film, read one segment at a time."""

    def __init__(self, film: Row, store: Store) -> None:
        self._film, self._store = film, store
        self._read: dict[int, tuple[dict[int, bytes], dict[int, list[Row]]]] = {}

    def _segment(self, index: int) -> tuple[dict[int, bytes], dict[int, list[Row]]]:
        """Pictures and texts by timestamp."""
        if index not in self._read:
            table = pq.read_table(self._store.path(self._film["stills"][index]), columns=["pts", "image"])
            texts = _texts(self._store, (self._film.get("title_texts") or {index: None})[index])
            self._read = {index: ({row["pts"]: row["image"] for row in table.to_pylist()}, texts)}
        return self._read[index]

    def of_shot(self, shot: Row, *, telling_text: bool = False) -> Row | None:
        """The picture nearest to a shot's middle, or the one in which text was found most surely.

        Returns:
            `src` (relative to the review), `image` (the bytes of a JPEG), `time_s` and `boxes` as in
            `lost_stills`, if asked for; None if the scan kept no picture of the shot.
        """
        middle = (shot["start_pts"] + shot["end_pts"]) / 2
        best: tuple[tuple[float, float], int, int] | None = None
        for index, segment in enumerate(self._film["segments"] if self._film.get("stills") else ()):
            end = segment["end_pts"]
            if segment["start_pts"] >= shot["end_pts"] or (end is not None and end <= shot["start_pts"]):
                continue
            pictures, texts = self._segment(index)
            for pts in pictures:
                if shot["start_pts"] <= pts < shot["end_pts"]:
                    worth = (_surest(texts, pts) if telling_text else 0.0, -abs(pts - middle))
                    best = max(best, (worth, index, pts)) if best else (worth, index, pts)
        if best is None:
            return None
        _, index, pts = best
        pictures, texts = self._segment(index)
        stream = self._film["stream"]
        ticks = pts - stream["first_pts"]
        return {
            "src": f"media/{self._film['film_id']}/{pts}.jpg",
            "image": pictures[pts],
            "time_s": ticks * stream["time_base_num"] / stream["time_base_den"],
            "boxes": [_percent(box, stream) for box in texts.get(pts, ())] if telling_text else [],
        }


def unusable_stills(film: Row, shots: Sequence[Row], store: Store) -> list[Row]:
    """Unusable shots with a picture each, at most `UNUSABLE`, evenly spaced over them.

    Args:
        film: the film's row.
        shots: of `curation.publishing.tables.shots_of`.
        store: where the scan's pictures lie.
    """
    stills = ScanStills(film, store)
    lost = spread([shot for shot in shots if shot["usable"] is False], UNUSABLE)
    found = [(shot, stills.of_shot(shot, telling_text=shot["reason"] == TITLE)) for shot in lost]
    return [{"shot": shot, **still} for shot, still in found if still is not None]


# -- the row of pictures of a film --------------------------------------------------------------


def film_pictures(world: World, film: Row) -> list[Row]:
    """Pictures of a film for the first page: some of each of its sequences, else of its shots.

    Returns:
        Groups in the order of time: the `sequence_id` that a group leads to with its `number`, `reason` (None
        if kept) and `clips_s`, seconds that its clips show (all None for the one group of shots); and its
        `pictures`, each with `src`, `time_s`, `shape` (width over height), whether it is a `strip`, of which
        the middle is shown, and `image`: the bytes to write to `src`, None if the file is there.
    """
    lost, kept = [], []
    for number, sequence in enumerate(world.of_film.get(film["film_id"], ()), 1):
        names = ("sequence_id", "reason", "start_s", "end_s")
        group = {**{c: sequence[c] for c in names}, "number": number, "clips_s": None}
        if sequence["status"] == KEPT:
            group["clips_s"] = clips_seconds(sequence)
            kept.append({**group, "pictures": list(_strips(sequence))})
        elif stills := lost_stills(sequence, world.store):
            best = max(stills, key=lambda still: (still["sure"], -still["time_s"]))
            place = {"strip": False, "shape": still_shape(sequence["stream"]), "image": None}
            lost.append({**group, "pictures": [{**place, **{c: best[c] for c in ("src", "time_s")}}]})
    if not lost and not kept:
        shots = list(_shots(film, world.store))
        none = dict.fromkeys(("sequence_id", "number", "reason", "clips_s"))
        return [{**none, "pictures": shots}] if shots else []
    kept = spread(kept, SEQUENCES - min(len(lost), LOST_PER_FILM))
    lost = spread(lost, SEQUENCES - len(kept))
    each = max(1, (PER_FILM - len(lost)) // max(1, len(kept)))
    for group in kept:
        group["pictures"] = spread(group["pictures"], each)
    return sorted([*kept, *lost], key=lambda group: group["number"])


def clips_seconds(sequence: Row) -> float:
    """Seconds of film that the clips of a sequence show; as files they last up to 1/16 s longer each."""
    return sum(clip["end_s"] - clip["start_s"] for clip in sequence["clip_files"] or [])


def _strips(sequence: Row) -> Iterator[Row]:
    """The contact strip of each clip that has one."""
    clips = {str(clip["clip_index"]): clip for clip in sequence["clip_files"]}
    for proof in sequence.get("proof") or []:
        if proof["kind"] == "strip":
            clip = clips[proof["about"]]
            src = proof_path(sequence["sequence_id"], proof["image"])
            place = {"strip": True, "shape": clip["width"] / clip["height"], "image": None}
            yield {"src": src, "time_s": clip["start_s"], **place}


def _shots(film: Row, store: Store) -> Iterator[Row]:
    stills = ScanStills(film, store)
    for shot in spread(film.get("shots") or [], PER_FILM):
        if still := stills.of_shot(shot):
            yield {**still, "strip": False, "shape": still_shape(film["stream"])}
