"""The review page and the card show everything, offline, and take hostile text as text."""

import json
import re
import urllib.parse
from html.parser import HTMLParser
from pathlib import Path

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation import rows
from curation.framing import pictures
from curation.publishing.card import clock, fence, md, num
from curation.publishing.publish import publish
from curation.publishing.review import axis, texts_told, use_classes
from curation.query import run_query
from curation.stages.proof import Proof, busiest_frame, telling_spans, telling_still
from tests.curation.rows_factory import HOSTILE, artefact, outcome, stream
from tests.support import scratch

FACTS = {
    "dataset": f"set {HOSTILE}",
    "preset": "paper-table",
    "settings": {"scan": {"note": f"```{HOSTILE}"}},
}


class Page(HTMLParser):
    """Tags, links and text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("href", "src")]
        self.ids |= {value for name, value in attrs if name == "id"}

    def handle_data(self, data) -> None:
        self.text += data


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    tables, store = outcome(folder / ".work")
    for film in tables["film"]:
        if film["windows"]:  # the context in the middle is no clip
            rest = film["coverage"].pop()
            ends = ((rest["start_s"], 15.0, None), (15.0, 18.0, "context"), (18.0, rest["end_s"], None))
            film["coverage"] += [{**rest, "start_s": a, "end_s": b, "reason": why} for a, b, why in ends]
    good = tables["sequence"][1]
    path = store.path("proof/aa/key/strip-00.jpg")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"jpeg")
    good["proof"] = [{"kind": "strip", "about": "0", "image": "proof/aa/key/strip-00.jpg"}]
    good["clip_files"][0]["end_s"] -= 0.2  # cut to 4n+1 frames
    good["shot_captions"][1] |= {"shot_caption": None, "caption": None}
    refused = {**good["caption_calls"][1], "target": "1", "status": "refused", "faults": ["too <b>dark</b>"]}
    good["caption_calls"] = [*good["caption_calls"], refused]
    lost = tables["sequence"][2]
    still = artefact(store, "analyse/aa/key/still-00-0.jpg", b"jpeg")
    lost["stills"] = [{"clip_index": 0, "frame": 0, "pts": 4000, "time_s": 4.0, "image": still}]
    publish(tables, store, folder, FACTS)
    return folder


def test_a_page_for_every_film_that_was_decoded(made: Path) -> None:
    index = Page(made / "review" / "index.html")
    pages = sorted(p.name for p in (made / "review").glob("f*.html"))
    assert pages == [f"f{n * 15}.html" for n in "1234"]
    assert set(pages) <= set(index.links)
    assert "notes.txt" in index.text
    assert "no_sequence_left" in index.text
    assert "6 files found = 2 kept + 3 rejected + 1 failed" in index.text


def test_every_link_leads_to_a_file_of_the_set(made: Path) -> None:
    for path in (made / "review").glob("*.html"):
        page = Page(path)
        for link in page.links:
            target, _, place = link.partition("#")
            assert not urllib.parse.urlsplit(link).scheme, f"{link} is not offline"
            file = made / "review" / target if target else path
            assert file.exists(), link
            assert not place or place in Page(file).ids, link
        assert "url(" not in path.read_text(), "styles load nothing"


def test_film_page_shows_clips_subjects_targets_and_verdicts(made: Path) -> None:
    page = Page(made / "review" / "f222222222222222.html")
    assert sum(link.endswith(".mp4") for link in page.links) == 4
    assert sum(link.endswith(".png") for link in page.links) == 2
    assert "media/f222222222222222-q4000-30000/strip-00.jpg" in page.links
    for text in ("[Person A] walks, 3.", "[Person A]", "too_dark", "paper-table", "1 subtitle."):
        assert text in page.text, text
    lost = Page(made / "review" / "f333333333333333.html")
    assert "rejected: no_label" in lost.text
    assert "media/f333333333333333-q4000-30000/still-00-0.jpg" in lost.links
    assert not any(link.endswith(".mp4") for link in lost.links)


def test_the_first_page_has_pictures_of_what_was_kept_and_of_what_was_not(made: Path) -> None:
    index = Page(made / "review" / "index.html")
    pictures = [link for link in index.links if link.endswith(".jpg")]
    assert pictures == [
        "media/f333333333333333-q4000-30000/still-00-0.jpg",
        "media/f222222222222222-q4000-30000/strip-00.jpg",
    ] or pictures == [
        "media/f222222222222222-q4000-30000/strip-00.jpg",
        "media/f333333333333333-q4000-30000/still-00-0.jpg",
    ]
    assert "f333333333333333.html#f333333333333333-q4000-30000" in index.links


def test_seconds_in_clips_mean_one_thing_everywhere(made: Path) -> None:
    """Two kept films of 23 s in clips, less 0.2 s that one clip leaves out."""
    index = Page(made / "review" / "index.html")
    one, two = (Page(made / "review" / f"f{n * 15}.html") for n in "12")
    flat = " ".join(index.text.split())
    assert "0:45.8in clips" in flat
    assert "in clips 0:45.8" in flat, "the legend"
    assert "trimmed 0:00.2" in flat
    assert "published, in clips20:45.8" in flat
    assert "0:22.8 in clips" in flat, "the film's line"
    assert "in clips 0:22.8, 76 %" in " ".join(two.text.split())
    assert "in clips 0:23.0, 76.7 %" in " ".join(one.text.split())
    card = (made / "README.md").read_text()
    assert "| clips | 8 (0:45.8) |" in card
    assert "| published | 2 | 0:45.8 |" in card
    assert json.loads((made / "run.json").read_text())["counts"]["clip_seconds"] == 45.8
    spans = [s for s in run_query(made, "FROM coverage WHERE reason = 'trimmed'").rows if s]
    assert len(spans) == 1


def test_packed_and_published_stand_side_by_side(made: Path) -> None:
    counts = json.loads((made / "run.json").read_text())["counts"]
    assert counts["packed"] == {"sequences": 3, "seconds": 69.0, "share": 69 / 120}
    assert counts["published"] == {"sequences": 2, "seconds": 45.8, "share": 45.8 / 120}
    assert [p["share"] for p in counts["presets"]] == [4 * 23 / 120]


def test_shots_are_counted_from_1_and_columns_keep_their_names(made: Path) -> None:
    """The third member of the sequence is context, so clip_index 3 is the third shot that is a clip."""
    text = " ".join(Page(made / "review" / "f222222222222222.html").text.split())
    for number, index in ((1, 0), (2, 1), (3, 3), (4, 4)):
        assert re.search(rf"Shot {number} [^S]*clip_index {index} ", text), number
    assert "about 12 s in shots 1, 2, 3, 4" in text
    assert "shot 1, 0.2 s into it" in text
    assert "sequence 1, shot 3" in text
    assert "sequence 1, context" in text
    html = (made / "review" / "f222222222222222.html").read_text()
    assert '<td>story</td><td class="wrap">the sequence</td>' in html
    assert '<td>shot</td><td class="wrap">shot 1</td>' in html


def test_texts_are_told_in_words() -> None:
    def told(*kinds: str) -> str:
        return texts_told([{"kind": kind} for kind in kinds])

    assert told() == "No subtitle or logo was found."
    assert told("subtitle", "logo", "subtitle") == "Cropped away: 2 subtitles, 1 logo."
    assert told("scene_text") == "No subtitle or logo was found. Left alone, as a part of the scene: 1 text."
    assert told("title", "scene_text", "scene_text").startswith("Cropped away: 1 title. Left alone")


def test_a_missing_caption_says_why(made: Path) -> None:
    pages = [Page(path).text for path in (made / "review").glob("*.html")]
    assert sum("No caption (refused: too <b>dark</b>)." in text for text in pages) == 1


def test_hostile_text_is_text(made: Path) -> None:
    for path in (made / "review").glob("*.html"):
        page = Page(path)
        assert page.tags.count("script") == 1, path.name
        assert "49" not in page.text or "{{ 7*7 }}" in page.text
    assert HOSTILE in Page(made / "review" / "f222222222222222.html").text
    card = (made / "README.md").read_text()
    assert "<script" not in card.split("```")[0]
    assert "{{ 7" in card


def test_card_shows_numbers_beside_the_papers(made: Path) -> None:
    card = (made / "README.md").read_text()
    line = next(x for x in card.splitlines() if x.startswith("| Clips per sequence"))
    assert [c.strip() for c in line.strip("|").split("|")] == [
        "Clips per sequence", "2", "4", "4", "4", "4", "2,033", "6", "16", "9.95", "-",
    ]  # fmt: skip
    story = next(x for x in card.splitlines() if x.startswith("| Sequence caption"))
    assert story.split("|")[2].strip() == "2"
    assert story.split("|")[3].strip() == str(len(HOSTILE))
    assert "| CC0 | 1 | 1 | 22.8 |" in card
    assert "Made by the embedded tier" in card


def test_markdown_filters() -> None:
    assert md("a|b\n<c> `d`") == r"a\|b &lt;c&gt; \`d\`"
    assert md("it's") == "it&#39;s"
    text = str(fence("a: '```'"))
    assert text.startswith("````yaml\n")
    assert text.endswith("\n````")


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "-"), (0, "0"), (1234.5, "1,234.5"), (20.0, "20"), (1000000, "1,000,000")]
)
def test_numbers(value, shown) -> None:
    assert num(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "-"), (0, "0:00.0"), (59.96, "1:00.0"), (125.25, "2:05.2"), (7322, "2:02:02.0")],
)
def test_times(seconds, shown) -> None:
    assert clock(seconds) == shown


def test_axis_has_few_round_marks() -> None:
    assert axis(30.0) == [0, 5, 10, 15, 20, 25, 30]
    assert len(axis(7200.0)) == 13
    assert axis(0.0) == [0]


def test_reasons_keep_their_colour_whatever_their_order() -> None:
    one, other = use_classes(["b", "in clips", "a"]), use_classes(["a", "b"])
    assert one == other
    assert len(set(one.values())) == len(one) == 5


# -- pictures -----------------------------------------------------------------------------------


def write_film(path: Path, count: int, size: tuple[int, int], rate: int, gop: int = 10) -> None:
    """Frame n is grey of value 2 n, with a white square whose left edge is at x = n."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=rate, options={"g": str(gop), "crf": "5"})
        video.height, video.width = size
        video.pix_fmt = "yuv420p"
        for n in range(count):
            picture = np.full((*size, 3), 2 * n, np.uint8)
            picture[20:60, n : n + 40] = 255
            for packet in video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in video.encode():
            container.mux(packet)


@pytest.fixture
def row(tmp_path: Path) -> dict:
    """A one-clip sequence of a film of 160x120 at 25 fps; the subject is the white square."""
    folder = scratch(tmp_path, "export")
    for n in (0, 30):
        picture = np.full((60, 80), 2 * n, np.uint8)
        cv2.imwrite(str(folder.path(f"still-{n}.jpg")), picture, [cv2.IMWRITE_JPEG_QUALITY, 95])
    write_film(folder.path("clip.mp4"), 33, (96, 128), 16)
    boxes = [
        {
            **{f.name: None for f in rows.TRACK_BOX},
            **{"track_id": 3, "clip_index": 0, "shot_id": "s", "frame": n, "pts": 512 * n, "time_s": n / 25},
            **{"x": float(n), "y": 20.0, "width": 40.0, "height": 40.0, "score": 0.9},
        }
        for n in range(0, 50, 5)
    ]
    pq.write_table(pa.Table.from_pylist(boxes, schema=rows.TRACK_BOX), folder.path("boxes.parquet"))
    refs = {name: folder.ref(name) for name in ("clip.mp4", "boxes.parquet")}
    stills = [
        {"clip_index": 0, "frame": n, "pts": 512 * n, "time_s": n / 25, "image": folder.ref(f"still-{n}.jpg")}
        for n in (0, 30)
    ]
    folder.commit()
    span = {"start_pts": 0, "end_pts": 60 * 512, "start_frame": 0, "end_frame": 60}
    film = stream(2.4) | {"width": 160, "height": 120, "time_base_num": 1, "time_base_den": 12800}
    overlay = {"x": 20.0, "y": 100.0, "width": 90.0, "height": 15.0, "start_s": 1.0, "end_s": 1.4}
    return {
        "sequence_id": "q",
        "stills": stills,
        "stream": film,
        "clips": [{"shot_id": "s", "clip_index": 0, "is_context": False, **span}],
        **{"crop_x": 16, "crop_y": 8, "crop_width": 128, "crop_height": 96},
        "overlays": [{"kind": "subtitle", **overlay}],
        "subjects": [{"subject_id": "q-p00", "label": "[Subject A]", "track_ids": [3]}],
        "boxes": refs["boxes.parquet"],
        "clip_files": [
            {"clip_index": 0, "video": refs["clip.mp4"], "num_frames": 33, "start_s": 0.0, "end_s": 2.4}
        ],
    }


def test_proof_pictures(tmp_path: Path, row: dict) -> None:
    folder = scratch(tmp_path, "proof")
    made = Proof().worker()(row, folder)["proof"]
    folder.commit()
    assert [(p["kind"], p["about"]) for p in made] == [
        ("strip", "0"),
        ("boxes", "0"),
        ("crop", "q"),
        ("cast", "q-p00"),
    ]
    shown = {p["kind"]: cv2.imread(str(folder.open(p["image"]))) for p in made}
    width = 3 * Proof.strip_width + 2 * pictures.GAP
    assert shown["strip"].shape == (156, width, 3)
    greys = [int(shown["strip"][-10, k * (Proof.strip_width + pictures.GAP) + 8].mean()) for k in range(3)]
    assert greys == pytest.approx([0, 32, 64], abs=4), "first, middle and last frame"
    assert shown["cast"].shape[0] == Proof.cast_height
    before = shown["crop"][:, : Proof.film_width]
    assert before.shape[:2] == (480, 640)
    left, inside = before[200, 20].mean(), before[300, 400].mean()
    assert inside == pytest.approx(2 * 30, abs=4), "the still at 1.2 s, inside the subtitle"
    assert left == pytest.approx(0.35 * 60, abs=6), "what the crop leaves out is dimmed"
    assert "decoded_frames" not in folder.counters, "the film is not opened again"
    assert folder.counters["decoded_clip_frames"] == 33


def test_proof_is_deterministic(tmp_path: Path, row: dict) -> None:
    contents = []
    for name in ("one", "two"):
        folder = scratch(tmp_path, name)
        made = Proof().worker()(row, folder)["proof"]
        folder.commit()
        contents.append([folder.open(p["image"]).read_bytes() for p in made])
    assert contents[0] == contents[1]


def test_proof_of_a_sequence_without_subjects_or_text(tmp_path: Path, row: dict) -> None:
    made = Proof().worker()({**row, "subjects": [], "overlays": [], "boxes": None}, scratch(tmp_path, "p"))
    assert [p["kind"] for p in made["proof"]] == ["strip", "crop"]


def test_boxes_are_drawn_where_the_subject_is(tmp_path: Path, row: dict) -> None:
    picture = np.zeros((96, 128, 3), np.uint8)
    box = {"x": 36.0, "y": 28.0, "width": 40.0, "height": 40.0, "subject_id": "q-p00"}
    crop = (16, 8, 128, 96)
    drawn = pictures.draw_boxes(picture, [box], row["subjects"], crop)
    ys, xs = np.nonzero(drawn[40:, :].any(axis=2))
    assert (xs.min(), xs.max()) == pytest.approx((20, 60), abs=2)
    assert ys.max() + 40 == pytest.approx(60, abs=2)
    assert pictures.map_box(box, crop) == pytest.approx((20 / 128, 20 / 96, 40 / 128, 40 / 96))


def test_busiest_frame_prefers_subjects_then_size_then_the_first() -> None:
    def box(k: int, subject: str | None, side: float) -> dict:
        return {"k": k, "subject_id": subject, "width": side, "height": side}

    assert busiest_frame([]) is None
    assert busiest_frame([box(1, "a", 5), box(2, "a", 9), box(3, None, 50)]) == 2
    assert busiest_frame([box(1, "a", 50), box(2, "a", 5), box(2, "b", 5)]) == 2
    assert busiest_frame([box(4, "a", 5), box(2, "a", 5)]) == 2


def text(kind: str, start: float, end: float) -> dict:
    return {"kind": kind, "start_s": start, "end_s": end}


def test_telling_spans_are_subtitles_longest_first(row: dict) -> None:
    overlays = [text("logo", 0, 2.4), text("subtitle", 0, 0.4), text("subtitle", 1, 2)]
    assert telling_spans({**row, "overlays": overlays}) == [(1, 2), (0, 0.4)]
    assert telling_spans({**row, "overlays": overlays[:1]}) == [(0, 2.4)]
    assert telling_spans({**row, "overlays": [text("scene_text", 0, 1)]}) == [(0.0, 2.4)]


def test_telling_still_lies_in_a_subtitle_if_one_does(row: dict) -> None:
    assert telling_still(row)["time_s"] == 1.2
    assert telling_still({**row, "overlays": [text("subtitle", 1.3, 1.5)]})["time_s"] == 0


def test_cut_outs_stay_inside_the_picture() -> None:
    picture = np.zeros((96, 128, 3), np.uint8)
    for box in (
        (-0.2, -0.2, 0.5, 0.5),
        (0.95, 0.95, 0.5, 0.5),
        (0.5, 0.5, 0.001, 0.001),
        (1.2, 1.2, 0.1, 0.1),
    ):
        assert pictures.cut_out(picture, box, 64).shape[0] == 64
