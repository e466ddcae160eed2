"""Pictures for the review: which are chosen, and where they come from."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation import rows
from curation.engine.store import Store
from curation.publishing.publish import publish
from curation.publishing.stills import (
    SEQUENCES,
    ScanStills,
    film_pictures,
    lost_stills,
    spread,
    unusable_stills,
)
from curation.publishing.tables import gather, shots_of
from curation.shots.scan_stills import Still, save_stills
from tests.curation.rows_factory import film, outcome, rejected, sequence


def scan(store: Store, row: dict, *, texts: dict[int, float] | None = None) -> dict:
    """The film row with a scan's picture each second, in two segments, and text of those scores."""
    cut = 15000
    refs: dict[str, list[str]] = {"stills": [], "title_texts": []}
    for index, seconds in enumerate((range(15), range(15, 30))):
        for name in refs:
            refs[name].append(f"scan/aa/{row['film_id']}-{index}/{name}.parquet")
            store.path(refs[name][-1]).parent.mkdir(parents=True, exist_ok=True)
        stills = [Still(s, 1000 * s, f"picture {s}".encode()) for s in seconds]
        save_stills(store.path(refs["stills"][-1]), stills)
        box = {"x": 128.0, "y": 72.0, "width": 640.0, "height": 360.0}
        empty = dict.fromkeys(rows.BOX_SCORE)
        boxes = [
            {"slot": s, "pts": 1000 * s, **({**box, "score": texts[s]} if texts and s in texts else empty)}
            for s in seconds
        ]
        table = pa.Table.from_pylist(boxes, schema=rows.STILL_TEXT)
        pq.write_table(table, store.path(refs["title_texts"][-1]))
    segments = [{"index": 0, "start_pts": 0, "end_pts": cut}, {"index": 1, "start_pts": cut, "end_pts": None}]
    return {**row, **refs, "segments": segments}


@pytest.mark.parametrize(
    ("number", "chosen"), [(0, []), (1, [5]), (2, [0, 9]), (4, [0, 3, 6, 9]), (10, list(range(10)))]
)
def test_items_are_spread_evenly(number: int, chosen: list[int]) -> None:
    assert spread(list(range(10)), number) == chosen


def test_a_shot_is_shown_by_its_middle_or_by_its_surest_text(tmp_path: Path) -> None:
    store = Store(tmp_path)
    row = scan(store, film("/films/a.mp4", "a" * 64), texts={13: 0.6, 16: 0.9, 17: 0.7})
    stills = ScanStills(row, store)
    over_the_cut = {"start_pts": 12000, "end_pts": 18000}
    middle = stills.of_shot(over_the_cut)
    assert (middle["image"], middle["time_s"], middle["boxes"]) == (b"picture 15", 15.0, [])
    told = stills.of_shot(over_the_cut, telling_text=True)
    assert (told["image"], told["boxes"]) == (b"picture 16", [(10.0, 10.0, 50.0, 50.0)])
    assert told["src"] == f"media/{row['film_id']}/16000.jpg"
    assert stills.of_shot({"start_pts": 12100, "end_pts": 12900}) is None, "shorter than a second"


def test_unusable_shots_have_their_picture(tmp_path: Path) -> None:
    store = Store(tmp_path)
    row = film("/films/a.mp4", "a" * 64)
    world = gather([row], [], store)
    assert unusable_stills(row, shots_of(world, row), store) == [], "the scan kept none"
    row = scan(store, row)
    (lost,) = unusable_stills(row, shots_of(world, row), store)
    assert (lost["shot"]["reason"], lost["image"]) == ("too_dark", b"picture 2")


def test_a_film_without_a_sequence_is_shown_by_its_shots(tmp_path: Path) -> None:
    store = Store(tmp_path)
    row = scan(store, film("/films/a.mp4", "a" * 64, packed=False))
    (group,) = film_pictures(gather([row], [], store), row)
    shown = group["pictures"]
    assert [p["time_s"] for p in shown] == [2.0, 7.0, 12.0, 17.0, 22.0, 28.0]
    assert (group["sequence_id"], group["reason"], group["clips_s"]) == (None, None, None)
    assert not any(p["strip"] for p in shown)
    assert shown[0]["shape"] == pytest.approx(16 / 9)


def test_pictures_of_the_scan_are_written_beside_the_pages(tmp_path: Path) -> None:
    tables, store = outcome(tmp_path / ".work")
    tables["film"] = [scan(store, f) if f["stream"] else f for f in tables["film"]]
    publish(tables, store, tmp_path, {"dataset": "a"})
    media = tmp_path / "review" / "media"
    assert (media / "f222222222222222" / "2000.jpg").read_bytes() == b"picture 2", "the dark shot"
    page = (tmp_path / "review" / "f444444444444444.html").read_text()
    assert 'src="media/f444444444444444/2000.jpg"' in page
    index = (tmp_path / "review" / "index.html").read_text()
    assert 'src="media/f444444444444444/28000.jpg"' in index


def lost(store: Store, seconds: list[int], texts: dict[int, float]) -> dict:
    """A sequence that the crop rejected, with stills at those seconds and text of those scores."""
    row = rejected(sequence(film("/films/a.mp4", "a" * 64), store), stage="crop")
    at = {
        s: {"clip_index": 0, "frame": 25 * s, "pts": 1000 * s, "time_s": float(s)} for s in (*seconds, *texts)
    }
    row["stills"] = [{**at[s], "image": f"analyse/aa/k/{s}.jpg"} for s in seconds]
    box = {"x": 0.0, "y": 0.0, "width": 1280.0, "height": 72.0}
    boxes = [{**at[s], **box, "score": score} for s, score in texts.items()]
    boxes.append({**at[seconds[0]], **dict.fromkeys(box), "score": None})
    row["text_boxes"] = "analyse/aa/k/text.parquet"
    store.path(row["text_boxes"]).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(boxes, schema=rows.TEXT_BOX), store.path(row["text_boxes"]))
    return row


def test_a_sequence_lost_to_text_is_shown_with_the_text(tmp_path: Path) -> None:
    store = Store(tmp_path)
    row = lost(store, list(range(4, 24)), {9: 0.5, 15: 0.9, 99: 1.0})
    shown = lost_stills(row, store)
    assert len(shown) == 6
    assert [s["time_s"] for s in shown] == sorted(s["time_s"] for s in shown)
    told = {s["time_s"]: s["boxes"] for s in shown if s["boxes"]}
    assert told == {9.0: [(0.0, 0.0, 100.0, 10.0)], 15.0: [(0.0, 0.0, 100.0, 10.0)]}
    other = lost_stills({**row, "stage": "subjects"}, store)
    assert not any(s["boxes"] for s in other), "text was not the reason"
    assert lost_stills({**row, "stills": []}, store) == []


def test_the_row_of_a_film_has_one_picture_of_each_lost_sequence(tmp_path: Path) -> None:
    store = Store(tmp_path)
    good = sequence(film("/films/a.mp4", "a" * 64), store)
    strips = [{"kind": "strip", "about": str(i), "image": f"proof/aa/k/{i}.jpg"} for i in (0, 1, 3, 4)]
    good = {**good, "proof": [*strips, {"kind": "crop", "about": "x", "image": "proof/aa/k/crop.jpg"}]}
    bad = lost(store, [40, 41, 42, 43], {42: 0.9}) | {"sequence_id": "q2", "start_pts": 40000}
    row = film("/films/a.mp4", "a" * 64)
    one, two = film_pictures(gather([row], [good, bad], store), row)
    assert (one["number"], one["reason"], len(one["pictures"])) == (1, None, 4)
    assert one["clips_s"] == 23.0, "of film, whatever the files last"
    assert one["pictures"][0]["strip"]
    assert one["pictures"][0]["shape"] == pytest.approx(832 / 480)
    assert (two["number"], two["reason"], two["clips_s"]) == (2, "no_label", None)
    assert [p["src"] for p in two["pictures"]] == ["media/q2/42.jpg"]


def test_every_sequence_of_a_film_has_a_picture_but_no_more_than_a_page_can_bear(tmp_path: Path) -> None:
    store = Store(tmp_path)
    row = film("/films/a.mp4", "a" * 64)
    strips = [{"kind": "strip", "about": str(i), "image": f"proof/aa/k/{i}.jpg"} for i in (0, 1, 3, 4)]
    many = [
        {**sequence(row, store), "sequence_id": f"q{n:02d}", "start_pts": 1000 * n, "proof": strips}
        for n in range(30)
    ]
    few = film_pictures(gather([row], many[:10], store), row)
    assert [len(group["pictures"]) for group in few] == [1] * 10
    shown = film_pictures(gather([row], many, store), row)
    assert len(shown) == SEQUENCES
    assert (shown[0]["number"], shown[-1]["number"]) == (1, 30)
    refused = lost(store, [40, 41], {})
    bad = [{**refused, **{c: s[c] for c in ("sequence_id", "start_pts")}} for s in many[:5]]
    mixed = film_pictures(gather([row], [*bad, *many[5:]], store), row)
    assert sum(group["reason"] is not None for group in mixed) == 3
    assert len(mixed) == SEQUENCES
