from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
import pytest

from benchmark.presets import metrics_of
from benchmark.report import page as pages
from benchmark.report import pictures
from benchmark.report.charts import drift_chart, heat_scale, interval_plot, radar
from benchmark.report.data import report_data
from benchmark.report.layout import table
from benchmark.report.page import page, slug, video_url, write_page
from benchmark.report.results import read_results, write_results
from benchmark.report.schema import Drift
from benchmark.submission import Clip, Submission, missing_shots, probed
from tests.benchmark import evaluations, made

STORIES = {
    "tale": made.story("tale", (3, 2), prompts=[f"[Person A] walks, shot {n}." for n in range(5)]),
    "other": made.story("other", (2, 2)),
}
METHODS = {"near": {"spread": 0.3}, "far": {"spread": 0.9, "absent": ("tale/01_02",)}}
HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}'


class Elements(HTMLParser):
    """Tags with their attributes, and text outside of styles and scripts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self._in = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._in.append(tag)

    def handle_endtag(self, tag):
        if tag in self._in:
            while self._in.pop() != tag:
                pass

    def handle_data(self, data):
        if not {"script", "style"} & set(self._in[-1:]):
            self.text.append(data)


@pytest.fixture(scope="module")
def data():
    return report_data(evaluations.evaluation(STORIES, METHODS), pictures=False)


@pytest.fixture(scope="module")
def shown(data):
    return page(data)


def test_the_page_asks_nothing_of_a_network(shown):
    elements = Elements(shown)
    for tag, attrs in elements.tags:
        for name in ("src", "href", "poster", "action", "data", "srcset"):
            value = attrs.get(name) or ""
            assert value.startswith(("#", "data:image/jpeg;base64,")) or not value, (tag, name, value)
    assert "url(" not in shown
    assert "@import" not in shown
    policy = next(a["content"] for t, a in elements.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_every_section_is_there_and_linked(shown):
    elements = Elements(shown)
    ids = [a["id"] for _, a in elements.tags if "id" in a]
    assert len(ids) == len(set(ids))
    for tag, attrs in elements.tags:
        if tag == "a":
            assert attrs["href"][1:].split("/")[0] in ids
    wanted = {
        "table", "intervals", "differences", "stories", "worst", "calibration", "split", "ambiguity",
        "agreement", "fairness", "prompts", "manifest", "story-tale", "story-other",
    }  # fmt: skip
    assert wanted <= set(ids)
    assert shown.count('class="heat"') == 4
    assert "viclip-b16: largest difference from golden vectors" in shown
    assert "Reported by Memento, not measured here" in shown


def test_tags_are_closed(shown):
    void = {"meta", "link", "img", "input", "br", "line", "circle", "polygon", "polyline"}
    opened = []

    class Closed(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag not in void:
                opened.append(tag)

        def handle_endtag(self, tag):
            if tag not in void:
                assert opened.pop() == tag

    Closed().feed(shown)
    assert opened == []


def test_what_users_write_is_data_everywhere(tmp_path):
    stories = {
        HOSTILE: made.story(
            HOSTILE, (2, 1), prompts=[f"{HOSTILE} [Person A] {n}" for n in range(3)], overview=HOSTILE,
            faults=(HOSTILE,), source=HOSTILE,
        )
    }  # fmt: skip
    evaluated = evaluations.evaluation(stories, {HOSTILE: {}, "b": {}})
    evaluated = replace(
        evaluated, environment={HOSTILE: HOSTILE}, command=HOSTILE, faults=(HOSTILE,), certificate=(HOSTILE,)
    )
    text = page(report_data(evaluated, folder=tmp_path, pictures=False))
    elements = Elements(text)
    assert not [a for t, a in elements.tags if t == "img" and not a["src"].startswith("data:")]
    assert sum(t == "script" for t, _ in elements.tags) == 2
    assert not [a for _, a in elements.tags for name in a if name.startswith("on")]
    assert "".join(elements.text).count(HOSTILE) > 10
    assert "49" not in [t.strip() for t in elements.text]
    players = re.search(r'<script type="application/json" id="players">(.*?)</script>', text, re.S)[1]
    assert list(json.loads(players)) == [slug(HOSTILE)]


def test_marks_that_turn_the_direction_of_text_are_shown_as_such(data):
    turned = replace(data, command="memento \u202eeval", warnings=["\x1b[31mred"])
    text = page(turned)
    assert "\u202e" not in text
    assert "\x1b" not in text


@pytest.mark.parametrize("path", ["a b/c#d?e.mp4", "javascript:alert(1)", "../x/%41.mp4", "\u4e2d.mp4"])
def test_addresses_of_videos_are_relative_paths(path):
    url = video_url(path)
    assert url.startswith(("./", "../"))
    assert not set(url) & set(' #?"<')
    assert unquote(url).removeprefix("./") == path.removeprefix("./")


def test_slugs_are_plain_and_differ():
    assert slug("little_prince") == "little_prince"
    assert re.fullmatch(r"[A-Za-z0-9_-]+", slug("a b/c"))
    assert slug("a b") != slug("a/b")


def test_a_page_made_again_from_results_is_the_same(data, shown, tmp_path):
    write_results(data, tmp_path)
    file = write_page(read_results(tmp_path), tmp_path)
    assert file.name == "report.html"
    assert file.read_text(encoding="utf-8") == shown


def test_undefined_numbers_are_dashes_with_a_reason():
    stories = {"one": made.story("one", (3,))}
    text = page(report_data(evaluations.evaluation(stories, {"a": {}, "b": {}}), pictures=False))
    assert 'title="the story does not have it' in text
    assert "&ndash;" in text
    assert "None" not in "".join(Elements(text).text)
    assert "nan" not in "".join(Elements(text).text).replace("Manifest", "").split()


def test_a_dash_says_why_in_a_note_below_the_table():
    """Of methods of which some have a number and others have none."""
    stories = {f"s{n}": made.story(f"s{n}", (2, 2)) for n in range(2)}
    every = [f"{key}/{shot.key.stem}" for key, story in stories.items() for shot in story.shots]
    one = [name for name in every if not name.endswith("/01_01")]
    found = evaluations.evaluation(stories, {"near": {}, "short": {"absent": one}, "none": {"absent": every}})
    main = table(report_data(found, pictures=False))
    near, short, none = main.rows
    assert {entry.note for entry in near.entries} == {""}
    by_name = {c.metric.name: e.dash for c, e in zip(main.columns, short.entries, strict=True) if e.note}
    assert set(by_name.values()) == {"- (a)"}
    assert {entry.dash for entry in none.entries} == {"- (b)"}
    assert main.notes[0].startswith(
        "(a) short: none of 2 stories has it: it needs shots or scenes that are not"
    )
    assert main.notes[1] == "(b) none: it has no shot: all columns"
    text = page(report_data(found, pictures=False))
    assert text.count(f'<sup title="{short.entries[-1].reason}">a</sup>') >= len(by_name)
    assert f"<li>{main.notes[1]}</li>" in text
    assert ">unavailable</a>" not in text


def test_a_method_that_lacks_an_encoder_which_others_had_is_told_which():
    """Features of others may come from an earlier run on a machine with the weights."""
    stories = {f"s{n}": made.story(f"s{n}", (2, 2)) for n in range(2)}
    every = [f"{key}/{shot.key.stem}" for key, story in stories.items() for shot in story.shots]
    found = evaluations.evaluation(stories, {"near": {}, "far": {}, "none": {"absent": every}})
    near, far, none = found.methods
    needs = [m.name for m in metrics_of(found.preset) if "dino_b14" in m.needs]
    scores = {**far.scores.metrics, **{name: none.scores.metrics[name] for name in needs}}
    far = replace(far, scores=replace(far.scores, metrics=scores, unavailable=dict.fromkeys(needs, "dino")))
    missing = "not found: memento weights pull dinov2-b14"
    encoders = [replace(e, missing=missing) if e.name == "dinov2-b14" else e for e in found.encoders]
    partly = replace(found, encoders=tuple(encoders), methods=(near, far))
    main = table(report_data(partly, pictures=False))
    assert main.notes == [
        "(a) far: unavailable: weights missing: not found: memento weights pull dinov2-b14: Subject "
        "consistency, intra-shot"
    ]
    assert [row.entries[-2].dash for row in main.rows] == ["-", "- (a)"]


def test_without_weights_the_page_says_what_would_bring_them():
    text = page(report_data(evaluations.evaluation(STORIES, METHODS, weights=False), pictures=False))
    assert "bring them with: memento weights pull viclip-b16 clip-b32 clip-l14 dinov2-b14" in text
    assert text.count("bring them with") == 1
    # Not in the cells, below the table and in the manifest as well.
    assert text.count("not found: memento weights pull clip-b32") == 1
    assert "needs clip-l14 and aes-mlp" in text
    for scores in re.findall(r'<table class="scores">.*?</table>', text, re.DOTALL):
        assert "unavailable</a>" not in scores  # a line for all, where nothing could be computed
    assert "None of these columns could be computed here" in text
    assert "Similarity of shots is unavailable" in text
    told = "Columns of preset memento: none could be computed here"
    assert text.index("Numbers that need no learned encoder") < text.index(told)
    assert 'id="calibration"' not in text
    assert 'class="heat"' not in text.replace('class="heat signed"', "")


def test_one_method_and_one_story_make_a_page():
    stories = {"one": made.story("one", (1,))}
    text = page(report_data(evaluations.evaluation(stories, {"a": {}}, frames=1), pictures=False))
    assert 'id="intervals"' not in text
    assert 'href="#intervals"' not in text
    assert "bootstrap" not in text
    assert "in bold need several stories" in text
    assert "1 story, 1 shot &middot;" in text
    assert 'id="differences"' not in text


def test_correlations_need_as_many_stories_as_ranks():
    few = {f"s{n}": made.story(f"s{n}", (2, 2)) for n in range(5)}
    methods = {"a": {}, "b": {"spread": 0.9}, "c": {"spread": 0.2}}
    text = page(report_data(evaluations.evaluation(few, methods), pictures=False))
    assert "Not told of 5 stories: as for ranks, fewer than 6 cannot tell" in text
    assert 'class="heat signed"' not in text
    enough = {**few, "s5": made.story("s5", (2, 2))}
    text = page(report_data(evaluations.evaluation(enough, methods), pictures=False))
    assert 'class="heat signed"' in text


def test_heat_maps_are_bounded_and_said_to_be(data, monkeypatch):
    monkeypatch.setattr(pages, "MAX_HEAT_CELLS", 60)
    text = page(data)
    assert text.count('class="heat"') == 2
    assert "left out to bound the size of this page" in text


def test_long_prompts_are_cut_and_said_to_be():
    prompts = ["word " * 20_000, "short", "short"]
    stories = {"long": made.story("long", (3,), prompts=prompts)}
    text = page(report_data(evaluations.evaluation(stories, {"a": {}}), pictures=False))
    assert "(100000 characters)" in text
    assert len(text) < 200_000


def test_missing_shots_are_shown_as_missing(shown):
    assert shown.count('<span class="missing">missing</span>') == 1
    players = json.loads(re.search(r'id="players">(.*?)</script>', shown, re.S)[1])
    assert "01_02" in players["tale"]["0"]
    assert "01_02" not in players["tale"]["1"]


@pytest.fixture(scope="module")
def filmed(tmp_path_factory):
    """An evaluation of real files: `near` as a file per shot, `far` as one file of declared ranges."""
    root, clips = tmp_path_factory.mktemp("videos"), {}
    for name in METHODS:
        for key, story in STORIES.items():
            for n, shot in enumerate(story.shots):
                colours = made.moving(12, seed=n + 10 * len(key))
                file = root / name / key / f"{shot.key.stem}.mp4"
                clips.setdefault(name, {}).setdefault(key, {})[shot.key] = Clip(
                    path=made.video(file, colours)
                )
    far = {}
    for key, story in STORIES.items():
        joined = [p for n in range(len(story.shots)) for p in made.moving(12, seed=n + 10 * len(key))]
        file = made.video(root / "far" / f"{key}.mp4", joined)
        far[key] = {s.key: Clip(path=file, start=12 * n, end=12 * n + 12) for n, s in enumerate(story.shots)}
    clips["far"] = far
    evaluated = evaluations.evaluation(STORIES, {})
    results = []
    for name, each in clips.items():
        given = Submission(method=name, clips=each, missing=missing_shots(each, STORIES))
        found = probed(given, STORIES)
        assert found.faults == ()
        settings = {"chosen": evaluated.preset, "made": evaluated.recipe, "clips": found.clips}
        results.append(evaluations.result(name, STORIES, **settings))
    return replace(evaluated, methods=tuple(results)), root


def test_pictures_are_of_the_right_frames(filmed):
    from PIL import Image

    evaluated, root = filmed
    data = report_data(evaluated, folder=root)
    assert data.pictures_left_out == 0
    assert len(data.posters) == 18
    for key in STORIES:
        for stem in ("01_01", "01_02", "02_01"):
            # The same pictures as a file of their own, and as a range inside one.
            both = [
                Image.open(io.BytesIO(base64.b64decode(data.pictures[data.posters[f"{m}/{key}/{stem}"]])))
                for m in METHODS
            ]
            assert both[0].size == both[1].size == (160, 90)
            a, b = (np.asarray(p.convert("L").resize((8, 6)), int) for p in both)
            assert np.abs(a - b).max() < 12
    assert all(len(pair.pictures) == 2 and all(pair.pictures) for pair in data.worst_pairs)
    text = page(data)
    players = json.loads(re.search(r'id="players">(.*?)</script>', text, re.S)[1])
    assert players["tale"]["1"]["01_02"] == ["./far/tale.mp4", 0.75, 1.5, 160]  # width of a fair poster
    assert players["tale"]["0"]["01_02"] == ["./near/tale/01_02.mp4", 0.0, None, 160]
    assert all((root / unquote(shot[0])).exists() for m in players["tale"].values() for shot in m.values())


def test_pictures_are_bounded_and_counted(filmed, monkeypatch):
    evaluated, root = filmed
    monkeypatch.setattr(pictures, "MAX_POSTERS", 5)
    data = report_data(evaluated, folder=root)
    assert len(data.posters) == 5
    assert data.pictures_left_out == 13
    assert "13 pictures were left out" in page(data)
    small = pictures.Album(room=3000)
    clip = evaluated.methods[0].submission.clips["tale"][next(iter(STORIES["tale"].shots)).key]
    while small.add(clip, middle=False, width=192) and small.left_out == 0 and len(small.pictures) < 2:
        clip = replace(clip, start=clip.start + 1)
    assert sum(map(len, small.pictures.values())) <= 3000


def test_posters_are_as_wide_as_there_is_room_for_all(filmed):
    from PIL import Image

    _, root = filmed
    file = made.video(root / "wide.mp4", made.moving(2, seed=1, size=(480, 832)))
    given = Submission(method="x", clips={"other": {STORIES["other"].shots[0].key: Clip(path=file)}})
    clip = next(iter(probed(given, STORIES).clips["other"].values()))
    widths = [pictures.poster_width([clip] * count, pictures.MAX_BYTES) for count in (20, 200, 350, 700)]
    assert widths == [640, 480, 320, 192]
    assert pictures.poster_width([clip] * 20, 0) == 192
    wide = Image.open(io.BytesIO(pictures.picture(clip, middle=False, width=640)))
    assert wide.size == (640, 370)


def test_a_video_that_went_away_costs_its_picture_only(filmed, tmp_path):
    evaluated, _ = filmed
    clip = evaluated.methods[0].submission.clips["tale"][STORIES["tale"].shots[0].key]
    assert pictures.picture(replace(clip, path=tmp_path / "gone.mp4"), middle=True, width=64) == b""
    torn = tmp_path / "torn.mp4"
    torn.write_bytes(clip.path.read_bytes()[:700])
    assert pictures.picture(replace(clip, path=torn), middle=False, width=64) == b""


def test_positions_in_charts(data):
    one = table(data)
    spans, low, high = interval_plot(one, 4)
    for span, row in zip(spans, one.rows, strict=True):
        assert low + span.at / 100 * (high - low) == pytest.approx(row.entries[4].cell.value, abs=1e-4)
        assert 0 <= span.low <= span.at <= span.high <= 100
    found = radar(one)
    lengths = {name: [(x * x + y * y) ** 0.5 for x, y in shape] for name, shape in found["shapes"].items()}
    assert max(lengths["near"]) == pytest.approx(120, abs=0.2)
    assert all(0.17 * 120 < r <= 120.1 for shape in lengths.values() for r in shape)
    drift = Drift(
        name="x", stems=["01_01", "01_02", "01_03"], values={"a": [1.0, None, 0.5], "b": [None] * 3}
    )
    chart = drift_chart(drift, 0.6, (0.5, 1.0))
    assert list(chart["lines"]) == ["a"]
    (_, top, *_), (_, bottom, *_) = chart["lines"]["a"]
    assert top < chart["floor"] < bottom
    assert heat_scale([None, 1.0]) == (0.0, 1.0)
