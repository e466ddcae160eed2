"""A study from videos to numbers: blind pages, checked answers, win and lose on the right side."""

from __future__ import annotations

import json
from dataclasses import replace

import av
import numpy as np
import pytest

from benchmark.study.agreement import INTERVAL, NOMINAL, ORDINAL, krippendorff_alpha, raw_agreement
from benchmark.study.answers import FORMAT, checksum, read_answers
from benchmark.study.design import CRITERIA, Film
from benchmark.study.films import STAMP_S
from benchmark.study.kit import (
    StudyError,
    StudySettings,
    make_study,
    read_key,
    study_id,
    token,
    usable_stories,
)
from benchmark.study.results import as_json, clustered, correlations, verdicts
from benchmark.submission import probed, read_folder
from tests.benchmark import made

METHODS = ("SecretAlpha", "SecretBeta")


def stories(count=3):
    return {f"tale{i}": made.story(f"tale{i}", layout=(2,), prompts=["A cat.", "Bye!"]) for i in range(count)}


def named_video(path, seed, method):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        container.metadata["title"] = container.metadata["comment"] = method
        stream = container.add_stream("libx264", rate=16)
        stream.height, stream.width, stream.pix_fmt = 48, 80, "yuv420p"
        for picture in made.moving(6, seed=seed, size=(48, 80)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    assert method.encode() in path.read_bytes()


@pytest.fixture(scope="module")
def submissions(tmp_path_factory):
    root = tmp_path_factory.mktemp("methods")
    for m, method in enumerate(METHODS):
        for i, key in enumerate(stories()):
            for shot in (1, 2):
                named_video(root / method / key / f"01_0{shot}.mp4", 10 * i + shot + 100 * m, method)
    return [probed(read_folder(root / method, stories()), stories()) for method in METHODS]


@pytest.fixture(scope="module")
def folder(submissions, tmp_path_factory):
    place = tmp_path_factory.mktemp("study") / "study"
    make_study(submissions, stories(), place, StudySettings(raters=4, checks=2))
    return place


def plan_of(folder):
    text = (folder / "pages" / "index.html").read_text()
    return json.loads(text.partition('id="plan">')[2].partition("</script>")[0])


def filled(key, rater, choose, count=None):
    """A file as the page would save it; `choose(left method, right method, trial)` gives a choice."""
    answers = []
    for number, trial in enumerate(key["sessions"][rater - 1][:count]):
        left, right = (
            token(key["secret"], Film(method=m, story=s)) for m, s in (trial["left"], trial["right"])
        )
        choice = choose(trial["left"][0], trial["right"][0], trial)
        answer = {"trial": number, "left": left, "right": right, **dict.fromkeys(CRITERIA, choice)}
        answers.append({**answer, "ms": 4000, "plays": 1})
    study = study_id(key)
    value = {"format": FORMAT, "study": study, "rater": rater, "answers": answers}
    return {**value, "check": checksum(study, rater, answers)}


def prefers_alpha(left, right, trial):
    if trial["check"]:
        return (
            "tie" if trial["check"] == "same" else "left" if trial["left"][1] == trial["story"] else "right"
        )
    return "left" if left == "SecretAlpha" else "right"


def saved(tmp_path, value, name="a.json"):
    (tmp_path / name).write_text(json.dumps(value))
    return tmp_path / name


# -- pages --------------------------------------------------------------------------------------


def test_nothing_that_raters_get_names_a_method(folder):
    given = [path for path in (folder / "pages").rglob("*") if path.is_file()]
    assert len(given) == 1 + 6
    for path in given:
        assert "secret" not in str(path.relative_to(folder)).lower()
        assert b"secret" not in path.read_bytes().lower()
    assert "SecretAlpha" in (folder / "key.json").read_text()
    assert not list((folder / "pages").rglob("key.json"))


def test_films_hold_all_frames_and_look_the_same_from_outside(folder):
    key = read_key(folder / "key.json")
    tags, times = set(), set()
    for name, film in key["films"].items():
        path = folder / "pages" / "videos" / f"{name}.mp4"
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            tags.add((tuple(container.metadata.items()), tuple(stream.metadata.items()), stream.codec.name))
            assert sum(1 for _ in container.decode(stream)) == 12
        times.add(path.stat().st_mtime)
        assert film["starts_ms"] == [0, 375]
    assert len(tags) == 1
    assert times == {STAMP_S}


def test_names_of_films_cannot_be_guessed_without_the_secret(folder, submissions, tmp_path):
    make_study(submissions, stories(), tmp_path / "b", StudySettings(raters=4, checks=2))
    first, second = (set(read_key(place / "key.json")["films"]) for place in (folder, tmp_path / "b"))
    assert len(first) == len(second) == 6
    assert not first & second


def test_the_page_knows_scripts_and_sessions_and_asks_no_network(folder):
    plan, text = plan_of(folder), (folder / "pages" / "index.html").read_text()
    assert [criterion["id"] for criterion in plan["criteria"]] == list(CRITERIA)
    assert [len(trials) for trials in plan["sessions"]] == [5] * 4
    assert plan["stories"][0]["shots"][0]["text"] == "A cat."
    assert "http://" not in text
    assert "https://" not in text
    assert "default-src 'none'" in text
    assert "check" not in json.dumps(plan["sessions"])


def test_prompts_cannot_become_markup(submissions, tmp_path):
    evil = {
        key: made.story(key, layout=(2,), prompts=["</script><script>alert(1)</script>", "B"])
        for key in stories()
    }
    make_study(submissions, evil, tmp_path / "s", StudySettings(raters=1))
    text = (tmp_path / "s" / "pages" / "index.html").read_text()
    assert "<script>alert" not in text
    assert plan_of(tmp_path / "s")["stories"][0]["shots"][0]["text"].startswith("</script>")


def test_making_it_again_goes_on_and_writes_no_film_twice(folder, submissions):
    videos = sorted((folder / "pages" / "videos").glob("*.mp4"))
    gone, before = videos[0], {path: path.stat().st_ino for path in videos}
    page = (folder / "pages" / "index.html").read_bytes()
    gone.unlink()
    make_study(submissions, stories(), folder, StudySettings(raters=4, checks=2))
    after = {path: path.stat().st_ino for path in videos}
    assert {path for path in videos if after[path] != before[path]} <= {gone}
    assert (folder / "pages" / "index.html").read_bytes() == page


def test_another_study_or_other_files_in_the_folder_are_refused(folder, submissions, tmp_path):
    with pytest.raises(StudyError, match=r"other settings \(seed 0 there, 1 now\): choose"):
        make_study(submissions, stories(), folder, StudySettings(raters=4, checks=2, seed=1))
    (tmp_path / "thesis.doc").touch()
    with pytest.raises(StudyError, match="not empty and no study"):
        make_study(submissions, stories(), tmp_path, StudySettings())


def test_stories_that_lack_shots_are_left_out_and_said(submissions):
    more = {**stories(), "tale9": made.story("tale9", layout=(2,))}
    assert usable_stories(submissions, more)[0] == ["tale0", "tale1", "tale2"]
    longer = {**stories(), "tale1": made.story("tale1", layout=(2, 1))}
    usable, faults = usable_stories(submissions, longer)
    assert usable == ["tale0", "tale2"]
    assert faults == ["tale1: left out, of 3 shots there are: SecretAlpha 2, SecretBeta 2"]
    usable, faults = usable_stories(submissions, longer, partial=True)
    assert usable == ["tale0", "tale1", "tale2"]
    assert faults[0].startswith("tale1: 2 of 3 shots are shown, those that every method has")


def test_partial_films_and_scripts_hold_the_shots_that_every_method_has(submissions, tmp_path):
    alpha, beta = submissions
    clips = {key: dict(shots) for key, shots in beta.clips.items()}
    gone = sorted(clips["tale1"])[0]
    del clips["tale1"][gone]
    given = [alpha, replace(beta, clips=clips, missing=(("tale1", gone),))]
    with pytest.raises(StudyError, match="--partial shows the shots that every method has: of 1 story"):
        make_study(given, {"tale1": stories()["tale1"]}, tmp_path / "no", StudySettings())
    assert not (tmp_path / "no").exists()
    told = []
    settings = StudySettings(raters=1, partial=True)
    study = make_study(given, stories(), tmp_path / "s", settings, lambda n, of: told.append((n, of)))
    assert study.faults[0].endswith("; missing: SecretBeta 01_01")
    assert told == [(n, 6) for n in range(7)]
    films = read_key(tmp_path / "s" / "key.json")["films"].values()
    assert {film["story"]: film["starts_ms"] for film in films} == {
        "tale0": [0, 375], "tale1": [0], "tale2": [0, 375],
    }  # fmt: skip
    plan = plan_of(tmp_path / "s")
    assert [[shot["stem"] for shot in story["shots"]] for story in plan["stories"]] == [
        ["01_01", "01_02"], ["01_02"], ["01_01", "01_02"],
    ]  # fmt: skip


def test_a_telephone_is_told_of_no_keys_and_of_films_one_above_the_other(folder):
    text = (folder / "pages" / "index.html").read_text()
    assert '<span class="wide">side by side</span>' in text
    assert "one above the other</span>" in text
    narrow = text.partition("@media (max-width: 760px), (hover: none)")[2]
    assert "kbd, .keys, .keyed { display: none; }" in narrow
    assert ".wide { display: none; }" in narrow


# -- answers ------------------------------------------------------------------------------------


def test_answers_come_back_on_the_right_side(folder, tmp_path):
    key = read_key(folder / "key.json")
    files = [saved(tmp_path, filled(key, r, prefers_alpha), f"{r}.json") for r in (1, 2, 3, 4)]
    sheets, faults = read_answers(files, key)
    assert faults == []
    assert [sheet.answered for sheet in sheets] == [3] * 4
    assert [sheet.checks for sheet in sheets] == [(2, 2)] * 4
    found = verdicts([one for sheet in sheets for one in sheet.judgements])
    assert {(v.first, v.second, v.criterion, v.win.value) for v in found} == {
        ("SecretAlpha", "SecretBeta", criterion, 1.0) for criterion in CRITERIA
    }
    assert all(v.answers == 12 and v.stories == 3 and v.raters == 4 for v in found)
    assert json.loads(json.dumps(as_json(found)))["verdicts"][0]["win"]["value"] == 1.0


def test_always_left_is_seen_as_such_and_favours_nobody(folder, tmp_path):
    key = read_key(folder / "key.json")
    files = [saved(tmp_path, filled(key, r, lambda *_: "left"), f"{r}.json") for r in (1, 2, 3, 4)]
    sheets, faults = read_answers(files, key)
    assert all(sheet.left == 1.0 for sheet in sheets)
    assert all("attention checks" in fault for fault in faults)
    found = verdicts([one for sheet in sheets for one in sheet.judgements])
    assert [v.net.value for v in found] == [0.0] * 3


def damaged(key, how):
    value = filled(key, 1, prefers_alpha)
    if how == "edited":
        value["answers"][0]["prompt"] = "tie"
    elif how == "study":
        value["study"] = "other"
    elif how == "rater":
        value["rater"] = 9
    elif how in ("films", "twice", "choice"):
        change = {"films": {"left": "0" * 16}, "twice": value["answers"][1], "choice": {"prompt": "maybe"}}
        value["answers"][0] |= change[how]
        value["check"] = checksum(value["study"], 1, value["answers"])
    return json.dumps(value)[: 200 if how == "half" else None]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("edited", "was changed after it was saved"),
        ("study", "belongs to another study"),
        ("rater", "the study has no rater 9"),
        ("films", "comparison 1 shows other films"),
        ("twice", "or twice: 1"),
        ("choice", "comparison 1 lacks an answer"),
        ("half", "perhaps half a file"),
    ],
)
def test_a_file_that_is_not_what_a_rater_saved_is_one_line(folder, tmp_path, how, message):
    (tmp_path / "bad.json").write_text(damaged(read_key(folder / "key.json"), how))
    sheets, faults = read_answers([tmp_path / "bad.json"], read_key(folder / "key.json"))
    assert sheets == []
    assert len(faults) == 1
    assert faults[0].startswith("bad.json: not used: ")
    assert message in faults[0]


def test_a_session_that_was_stopped_counts_as_far_as_it_went_and_a_copy_does_not(folder, tmp_path):
    key = read_key(folder / "key.json")
    files = [
        saved(tmp_path, filled(key, 1, prefers_alpha, count=2), "part.json"),
        saved(tmp_path, filled(key, 1, prefers_alpha), "whole.json"),
    ]
    sheets, faults = read_answers(files, key)
    assert [sheet.path.name for sheet in sheets] == ["whole.json"]
    assert faults[0] == "part.json: 2 of 5 comparisons are answered; these are used"
    assert "part.json: not used: other or fewer answers of rater 1" in faults[1]


def test_films_that_could_not_be_played_do_not_count(folder, tmp_path):
    key = read_key(folder / "key.json")
    file = saved(tmp_path, filled(key, 1, lambda *_: "broken"))
    (sheet,), faults = read_answers([file], key)
    assert (sheet.answered, sheet.broken, sheet.judgements) == (0, 5, ())
    assert faults == ["a.json: 5 comparisons do not count: a film could not be played"]


def test_a_key_is_a_key(tmp_path):
    with pytest.raises(StudyError, match="cannot be read"):
        read_key(tmp_path / "none.json")
    with pytest.raises(StudyError, match="is no key"):
        read_key(saved(tmp_path, {"format": "else"}))
    with pytest.raises(StudyError, match="not finished"):
        read_answers([], {"format": "memento-study/1"})


# -- numbers ------------------------------------------------------------------------------------

N = None
RELIABILITY = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, N, N, N],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, N, 3],
    [N, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, N],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, N],
]
"""Four observers, twelve units: the example of Krippendorff, Computing Krippendorff's Alpha-Reliability."""


@pytest.mark.parametrize(("metric", "alpha"), [(NOMINAL, 0.743), (ORDINAL, 0.815), (INTERVAL, 0.849)])
def test_alpha_of_the_published_example(metric, alpha):
    units = [[v for v in unit if v is not None] for unit in zip(*RELIABILITY, strict=True)]
    assert krippendorff_alpha(units, metric) == pytest.approx(alpha, abs=5e-4)


def test_alpha_of_perfect_and_of_opposite_raters():
    assert krippendorff_alpha([[1, 1], [0, 0], [-1, -1]]) == 1.0
    assert krippendorff_alpha([[1, -1], [-1, 1], [1, -1]], NOMINAL) < 0
    assert np.isnan(krippendorff_alpha([[1, 1], [1, 1]]))
    assert np.isnan(krippendorff_alpha([[1], [0]]))
    with pytest.raises(ValueError, match="is no metric"):
        krippendorff_alpha([[1, 0]], "ratio")


def test_raw_agreement_counts_pairs_of_raters():
    assert raw_agreement({"a": [1, 1, 0], "b": [0, 0]}) == pytest.approx(2 / 4)
    assert np.isnan(raw_agreement({"a": [1]}))


def cells(num_stories, num_raters):
    return np.repeat(np.arange(num_stories), num_raters), np.tile(np.arange(num_raters), num_stories)


def test_intervals_widen_with_what_answers_share():
    rng = np.random.default_rng(0)
    s, r = cells(30, 10)
    alone = (rng.random(300) < 0.57).astype(float)
    by_story = (rng.random(30) < 0.57).astype(float)[s]
    by_rater = (rng.random(10) < 0.57).astype(float)[r]

    def width(values):
        share = clustered({"win": values}, s.tolist(), r.tolist(), count=4000)["win"]
        assert share.low <= share.value <= share.high
        return share.high - share.low

    binomial = 2 * 1.96 * np.sqrt(alone.mean() * (1 - alone.mean()) / 300)
    assert binomial < width(alone) < 2.2 * binomial
    assert width(by_story) > 1.5 * width(alone)
    assert width(by_rater) > width(by_story)


def test_intervals_do_not_depend_on_the_order_of_answers_and_need_more_than_one_of_either():
    s, r = cells(6, 4)
    values = np.random.default_rng(1).integers(-1, 2, 24).astype(float)
    order = np.random.default_rng(2).permutation(24)
    a = clustered({"net": values}, s.tolist(), r.tolist(), count=500)["net"]
    b = clustered({"net": values[order]}, s[order].tolist(), r[order].tolist(), count=500)["net"]
    assert np.allclose(a, b)
    assert np.isnan(clustered({"net": values[:1]}, ["x"], [1])["net"].low)
    one_rater = clustered({"net": values[:6]}, list("abcdef"), [1] * 6, count=500)["net"]
    assert one_rater.low < one_rater.high


def test_metrics_that_say_what_people_say_correlate_and_missing_values_are_left_out(folder, tmp_path):
    key = read_key(folder / "key.json")

    def by_story(left, right, trial):
        best = {"tale0": "SecretAlpha", "tale1": "SecretBeta"}.get(trial["story"])
        return "tie" if best is None or trial["check"] else "left" if left == best else "right"

    files = [saved(tmp_path, filled(key, rater, by_story), f"{rater}.json") for rater in (1, 2)]
    judgements = [one for sheet in read_answers(files, key)[0] for one in sheet.judgements]
    good = {
        "SecretAlpha": {"tale0": 3.0, "tale1": 1.0, "tale2": 2.0},
        "SecretBeta": dict.fromkeys(stories(), 2.0),
    }
    metrics = {
        "good": good,
        "bad": {name: {story: -v for story, v in of.items()} for name, of in good.items()},
        "holes": {**good, "SecretBeta": {"tale0": 2.0, "tale1": float("nan")}},
    }
    found = {(a.metric, a.criterion): a for a in correlations(judgements, metrics, count=50)}
    assert found["good", "prompt"].rho == pytest.approx(1.0)
    assert found["bad", "prompt"].rho == pytest.approx(-1.0)
    assert found["good", "prompt"].cells == 3
    assert not any(metric == "holes" for metric, _ in found)
