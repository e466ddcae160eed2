"""The review page and the card show everything, offline, and take hostile text as text."""

import itertools
import json
import re
import urllib.parse
from html.parser import HTMLParser
from pathlib import Path

import pytest

from curation.framing import pictures
from curation.publishing.card import clock, fence, md, num
from curation.publishing.palette import PLAIN, STRIPED, frame_legend, paint, style_class
from curation.publishing.publish import publish
from curation.publishing.review import axis, texts_told
from curation.query import run_query
from tests.curation.rows_factory import HOSTILE, artefact, outcome

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
    assert set(pictures) == {
        "media/f333333333333333-q4000-30000/still-00-0.jpg",
        "media/f222222222222222-q4000-30000/strip-00.jpg",
    }
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
    html = (made / "review" / "f222222222222222.html").read_text()
    text = " ".join(Page(made / "review" / "f222222222222222.html").text.split())
    for number, index in ((1, 0), (2, 1), (3, 3), (4, 4)):
        assert re.search(rf"Shot {number} from ", text), number
        assert re.search(rf"<td class=\"n\">{number}</td><td class=\"n\">{index}</td>", html), number
    assert "about 12 s in shots 1, 2, 3, 4" in text
    assert "shot 1, 0.2 s into it" in text
    assert "sequence 1, shot 3" in text
    assert "sequence 1, context" in text
    assert '<td>story</td><td class="wrap">the sequence</td>' in html
    assert '<td>shot</td><td class="wrap">shot 1</td>' in html


def test_the_length_of_a_clip_stands_beside_that_of_its_shot_and_of_the_film(made: Path) -> None:
    text = " ".join(Page(made / "review" / "f222222222222222.html").text.split())
    header = re.search(
        r"4 shots, from (\S+) to (\S+) of the film: (\S+) s, of which its clips show (\S+) s", text
    )
    assert header is not None, text[:2000]
    assert header.groups() == ("0:04.0", "0:30.0", "26", "22.8")
    assert "Shot 1 from 0:04.00 of the film \u00b7 shows 4.8 s of the shot\u2019s 5 s in 81 frames" in text


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


def test_a_reason_has_one_colour_on_every_page_of_every_dataset(made: Path) -> None:
    painted: dict[str, set[str]] = {}
    for path in (made / "review").glob("*.html"):
        for name, colour in re.findall(
            r"^\.(use-[a-z0-9-]+) \{ background: (.*); \}$", path.read_text(), re.M
        ):
            painted.setdefault(name, set()).add(colour)
    assert painted["use-too-dark"] == {PLAIN["too_dark"]}
    assert all(len(colours) == 1 for colours in painted.values())
    shown = (made / "review" / "f222222222222222.html").read_text()
    assert shown.count('<i class="use-too-dark"></i>too_dark') >= 2, "legend, list of shots"


def test_known_uses_have_colours_of_their_own() -> None:
    known = [*PLAIN, *STRIPED]
    assert len({paint(use) for use in known}) == len(known)
    assert len({style_class(use) for use in known}) == len(known)
    assert paint("made up") == paint("made up").lower()
    assert style_class('a <b>"c"') == "use-a-b-c"


def test_what_was_not_packed_is_told_apart_by_more_than_a_shade_of_grey() -> None:
    uses = ("transition", "no_window", "shot_too_short", "shot_too_long", "mixed_fields")
    rgb = [[int(PLAIN[use][i : i + 2], 16) for i in (1, 3, 5)] for use in uses]
    for one, other in itertools.combinations(rgb, 2):
        assert sum(abs(a - b) for a, b in zip(one, other, strict=True)) > 100


def test_the_first_page_shows_sequences_and_says_where_the_rest_is(made: Path) -> None:
    text = " ".join(Page(made / "review" / "index.html").text.split())
    html = (made / "review" / "index.html").read_text()
    assert html.count('class="example"') == 2
    assert "open one for its clips to play, its subjects, crop, targets and all captions" in text
    assert 'href="f222222222222222.html#f222222222222222-q4000-30000"' in html
    assert "sequence 1 4 clips" in text
    assert "its neighbours do not make a sequence with it" in text, "what no_window means"


def test_a_shot_that_is_in_no_sequence_has_the_reason_of_the_coverage(made: Path) -> None:
    page = (made / "review" / "f222222222222222.html").read_text()
    assert "not packed" not in page


def test_the_legend_of_the_crop_names_the_frames_that_are_drawn() -> None:
    legend = frame_legend({"logo", "subtitle"})
    assert legend == [("#db4437", "subtitle"), ("#f4b400", "logo")]
    assert frame_legend(set()) == []
    assert set(pictures.OVERLAY_COLOURS) == {"subtitle", "title", "logo", "scene_text"}
