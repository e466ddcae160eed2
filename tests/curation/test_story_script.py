"""Story scripts: both public encodings, their known faults, and files that are no stories at all."""

from __future__ import annotations

import dataclasses
import json

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.stories.script import (
    ERROR,
    FORMS,
    NOTE,
    WARNING,
    StoryError,
    as_json,
    check_story,
    converted,
    json_schema,
    parse_story,
    read_story,
    safe_name,
    write_story,
)
from tests.support import SHARED

LOOK = "young man with dark hair"
PROMPT = f"global caption: [Person A]: {LOOK}; shot caption: [Person A] walks."


def story(**changes):
    """A sound story in the Memento form as the value of its file."""
    value = {
        "story_name": "The Walk",
        "story_overview": "A man walks.",
        "reconstruct_target": f"[Person A] {LOOK}",
        "scenes": [scene(1), scene(2, cut=[True, False])],
    }
    return {k: v for k, v in (value | changes).items() if v is not ...}


def scene(number, prompts=(PROMPT, PROMPT), **changes):
    value = {
        "scene_num": number,
        "video_prompts": list(prompts),
        "first_frame_prompt": ["A man."] * len(prompts),
        "cut": [True] * len(prompts),
    }
    return {k: v for k, v in (value | changes).items() if v is not ...}


def one(**changes):
    """A story of one scene, changed."""
    return story(scenes=[scene(1, **changes)])


def write(tmp_path, value, name="story.json"):
    path = tmp_path / name
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def said(faults, level):
    return [str(fault) for fault in faults if fault.level == level]


def test_a_sound_story(tmp_path):
    read = read_story(write(tmp_path, story(), "0_walk.json"))
    assert read.faults == ()
    assert (read.form, read.key, read.folder, read.story_name) == ("memento", "0_walk", "0_walk", "The Walk")
    assert [(s.stem, s.cut) for s in read.shots] == [
        ("01_01", True),
        ("01_02", True),
        ("02_01", True),
        ("02_02", False),
    ]
    assert read.shots[0].parts == (f"[Person A]: {LOOK}", "[Person A] walks.")
    assert read.cast == [("[Person A]", LOOK)]
    assert as_json(read) == story()
    plain = {k: v for k, v in story(scenes=[scene(1, ["A man walks."])]).items() if k != "reconstruct_target"}
    read = read_story(write(tmp_path, plain))
    assert (read.form, read.faults) == ("storymem", ())
    assert read.shots[0].parts == ("A man walks.", "A man walks.")


@pytest.mark.parametrize(
    ("value", "where", "part"),
    [
        ([], "", "is a list"),
        ("story", "", "is a string"),
        (7, "", "is a number"),
        (None, "", "is null"),
        (story(scenes=...), "", "scenes is missing"),
        (story(scenes={}), "", "scenes is an object"),
        (story(scenes=[]), "", "has 0 shots"),
        (one(prompts=[], cut=[]), "", "has 0 shots"),
        (story(scenes=[7]), "scene 1", "is a number"),
        (one(video_prompts=...), "scene 1", "video_prompts is missing"),
        (one(video_prompts=5), "scene 1", "video_prompts is a number"),
        (one(prompts=[PROMPT, 5]), "scene 1, shot 2", "the prompt is a number"),
        (one(prompts=["  "]), "scene 1, shot 1", "the prompt is empty"),
        (one(prompts=["a \ud800 b"]), "scene 1, shot 1", "surrogate"),
        (one(prompts=["word " * 10_000]), "scene 1, shot 1", "10,000 words"),
        (one(prompts=["global caption: ; shot caption: "]), "scene 1, shot 1", "nothing after"),
        (one(cut=7), "scene 1", "cut is a number"),
        (one(cut=[True, "perhaps"]), "scene 1, shot 2", "cut is 'perhaps'"),
        (one(cut=[True, 2]), "scene 1, shot 2", "cut is 2"),
        (one(scene_num="one"), "scene 1", "scene_num is 'one'"),
        (one(scene_num=True), "scene 1", "scene_num is True"),
        (one(scene_num=-1), "scene 1", "scene_num is -1"),
        (one(scene_num=10**6), "scene 1", "scene_num is 1000000"),
        (one(scene_num="9" * 5000), "scene 1", "scene_num is 999999999"),
        (story(scenes=[scene(1), scene(1)]), "scene 2", "given twice"),
        (story(reconstruct_target={}), "", "reconstruct_target is an object"),
    ],
)
def test_what_cannot_be_used(tmp_path, value, where, part):
    path = write(tmp_path, value)
    errors = [fault for fault in check_story(path) if fault.level == ERROR]
    assert len(errors) == 1, errors
    assert errors[0].where == where
    assert part in errors[0].text
    with pytest.raises(StoryError, match=r"story\.json: error: ") as raised:
        read_story(path)
    assert len(str(raised.value).splitlines()) == 1
    assert str(raised.value).isprintable()


@pytest.mark.parametrize(
    ("value", "where", "part"),
    [
        (story(story_overview=...), "", "story_overview is missing"),
        (story(story_overview=5), "", "story_overview is a number"),
        (story(story_name=...), "", "story_name is missing: 'story' is used"),
        (story(story_name=""), "", "story_name is empty"),
        (story(story_name="../../etc/passwd"), "", "no name for a file: files are named 'etc_passwd'"),
        (story(story_name="a\x00b\x1b[31m"), "", "hidden characters (U+0000, U+001B)"),
        (story(stroy_overview="x"), "", "did you mean 'story_overview'?"),
        (story(reconstruct_target=[f"[Person A] {LOOK}"]), "", "reconstruct_target is a list"),
        (story(reconstruct_target=""), "reconstruct_target", "is empty, but prompts use [Person A]"),
        (
            story(reconstruct_target=f"[Person A] {LOOK}\n[Person B] woman"),
            "reconstruct_target",
            "no prompt uses [Person B]",
        ),
        (
            story(reconstruct_target=f"[Person A] {LOOK}\nsomebody"),
            "reconstruct_target",
            "'somebody' is not read",
        ),
        (
            story(reconstruct_target="[Person A] old woman"),
            "reconstruct_target",
            "looks otherwise in scene 1",
        ),
        (
            one(prompts=[PROMPT.replace("walks", "sees [Dog B]")])
            | {"reconstruct_target": f"[Person A] {LOOK}\n[Dog B] grey poodle"},
            "scene 1, shot 1",
            "[Dog B] is not described",
        ),
        (one(prompts=[PROMPT, "[Person A] walks."]), "scene 1, shot 2", "taken for both parts"),
        (one(prompts=[PROMPT + " word" * 400]), "scene 1, shot 1", "414 words"),
        (one(prompts=[PROMPT.replace("walks", "walks\nand\tsits")]), "scene 1, shot 1", "line ends or tabs"),
        (
            one(prompts=[PROMPT.replace("walks", "wa\u202elks")]),
            "scene 1, shot 1",
            "hidden characters (U+202E)",
        ),
        (one(cut=...), "scene 1", "cut is missing: all 2 shots"),
        (one(cut=[True]), "scene 1", "cut has 1 entries for 2 shots: shot 2 begins"),
        (one(cut=[True] * 3), "scene 1", "cut has 3 entries for 2 shots: the last"),
        (one(cut=["True", False]), "scene 1, shot 1", "cut is 'True': it is read as true"),
        (one(cut=[True, "no"]), "scene 1, shot 2", "cut is 'no': it is read as false"),
        (one(cut=[True, 0]), "scene 1, shot 2", "cut is 0: it is read as false"),
        (one(prompts=[PROMPT], cut=True), "scene 1", "cut is no list"),
        (one(cut=[False, True]), "scene 1, shot 1", "nothing comes before"),
        (
            story(scenes=[scene(1), scene(2, cut=[False, True])]),
            "scene 2, shot 1",
            "continues from the last picture",
        ),
        (one(first_frame_prompt=["A man."]), "scene 1", "1 entries for 2 shots"),
        (one(first_frame_prompt="A man."), "scene 1", "first_frame_prompt is no list"),
        (one(scene_num=...), "scene 1", "scene_num is missing: 1 is used"),
        (one(scene_num="1"), "scene 1", "scene_num is the string '1'"),
        (one(scene_num=1.0), "scene 1", "scene_num is 1.0"),
        (story(scenes=[scene(2), scene(1)]), "scene 2", "comes after 2"),
        (story(scenes=[scene(1), scene(2, [], cut=[])]), "scene 2", "has 0 shots and is left out"),
        (
            one(prompts=PROMPT, video_prompts=PROMPT, cut=[True], first_frame_prompt=["x"]),
            "scene 1",
            "a string",
        ),
    ],
)
def test_what_is_mended_and_said(tmp_path, value, where, part):
    path = write(tmp_path, value)
    warnings = [fault for fault in check_story(path) if fault.level != NOTE]
    assert len(warnings) == 1, warnings
    assert (warnings[0].level, warnings[0].where) == (WARNING, where)
    assert part in warnings[0].text
    assert str(warnings[0]).isprintable()
    read = read_story(path)
    assert warnings[0] in read.faults
    again = tmp_path / "again.json"
    write_story(read, again)
    assert dataclasses.replace(read_story(again), key=read.key) == read


def test_all_faults_of_a_file_are_said_at_once(tmp_path):
    value = story(scenes=[scene(1, cut=["x", "y"], prompts=[1, PROMPT]), scene(1), 7])
    errors = said(check_story(write(tmp_path, value)), ERROR)
    assert len(errors) == 5
    with pytest.raises(StoryError) as raised:
        read_story(tmp_path / "story.json")
    assert len(str(raised.value).splitlines()) == 5


def test_unknown_keys_come_back(tmp_path):
    value = story(author="me", scenes=[scene(1, mood="calm")])
    read = read_story(write(tmp_path, value))
    assert as_json(read) == value


def test_characters_beyond_ascii_are_kept(tmp_path):
    value = story(
        scenes=[scene(1, [PROMPT.replace("walks", "walks \u2014 \u201cslowly\u201d \u4e2d \U0001f600")])]
    )
    read = read_story(write(tmp_path, value))
    assert said(read.faults, NOTE) == [
        "note: 1 prompts hold characters beyond ASCII, which are kept as they are"
    ]
    write_story(read, tmp_path / "b.json")
    assert as_json(read_story(tmp_path / "b.json")) == value
    assert "\u4e2d" in (tmp_path / "b.json").read_text(encoding="utf-8")


def test_another_spelling_is_shown_beside_the_usual_one():
    told = "global caption: [Person A]: a man in red; [Person B]: a nun; shot caption: [Person A] nods."
    _, faults = parse_story(story(scenes=[scene(1, [told])]))
    assert [f for f in said(faults, NOTE) if "spelt" in f] == [
        "note: scene 1, shot 1: has 'son A]: a man in red; [Person B]: a nun;', "
        "usually spelt 'son A]: a man in red, [Person B]: a nun;'; it is read"
    ]


def test_forms_convert():
    read, _ = parse_story(story(scenes=[scene(1, [PROMPT + " [Person A] sits. [Thing B]."])]))
    plain = converted(read, "storymem")
    assert plain.form == "storymem"
    assert plain.shots[0].prompt == f"{LOOK} walks. the young man sits. [Thing B]."
    back = converted(plain, "memento")
    assert back.shots[0].prompt == f"global caption: ; shot caption: {plain.shots[0].prompt}"
    assert converted(read, "memento") is read
    for use in (lambda: converted(read, "html"), lambda: json_schema("html")):
        with pytest.raises(ValueError, match="'html' is no form"):
            use()


def test_nothing_is_written_that_cannot_be_read(tmp_path):
    read, _ = parse_story(story())
    path = tmp_path / "deep" / "story.json"
    write_story(read, path)
    before = path.read_bytes()
    broken = dataclasses.replace(read, scenes=())
    with pytest.raises(StoryError, match="has 0 shots"):
        write_story(broken, path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("The Walk", "The_Walk"),
        ("../../etc/passwd", "etc_passwd"),
        ("C:\\Windows\\x", "C_Windows_x"),
        ("a\x00b\n\u202ec", "a_b_c"),
        ("\u732b\u738b 2", "\u732b\u738b_2"),
        ("-rf", "rf"),
    ],
)
def test_safe_names(text, name):
    assert safe_name(text) == name


@given(st.text(max_size=200))
def test_any_name_is_made_safe(text):
    name = safe_name(text)
    assert 0 < len(name.encode()) <= 100
    assert not set(name) & set('/\\.:*?"<>| \n\0')
    assert safe_name(name) == name
    assert name.lower() not in ("con", "nul", "aux", "prn")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from([*story(), *scene(1), "x"]),
            inner,
            max_size=6,
        )
    ),
    max_leaves=30,
)


@settings(max_examples=200, deadline=None)
@given(json_values)
def test_any_value_is_a_story_or_has_errors(value):
    read, faults = parse_story(value, "any")
    assert (read is None) == any(fault.level == ERROR for fault in faults)
    assert all(str(fault).isprintable() for fault in faults)
    if read is not None:
        again, _ = parse_story(as_json(read), "any")
        assert again == read


PUBLISHED_FAULTS = {
    "memento/12_sama_gpu": ["[Group C] is not in reconstruct_target", "no prompt uses [Person D]"],
    "memento/14_harry": ["story_overview is missing"],
    "memento/2_elon": ["no prompt uses [Person B]", "no prompt uses [Person C]"],
    "memento/3_astronaut": ["[Vehicle A] is not in reconstruct_target"],
    "memento/4_queen": ["[Person B] is not described in the global caption"],
    "memento/5_cat": ["[Animal A] is not in reconstruct_target"],
    "memento/6_santa": [
        "cut has 1 entries for 3 shots",
        "first_frame_prompt has 1 entries for 3 shots",
        "is empty, but prompts use",
    ],
}


def test_the_published_scripts(tmp_path):
    """All 45, with exactly the faults that are known; sound ones come back as they were."""
    paths = sorted((SHARED / "data" / "stbench").glob("*/*.json"))
    if not paths:
        pytest.skip("scripts not present: stbench")
    shots = {"memento": 0, "storymem": 0}
    for path in paths:
        name = f"{path.parent.name}/{path.stem}"
        read = read_story(path)
        shots[read.form] += len(read.shots)
        assert read.form == path.parent.name
        warnings = [fault.text for fault in read.faults if fault.level != NOTE]
        expected = PUBLISHED_FAULTS.get(name, [])
        assert len(warnings) == len(expected), (name, warnings)
        assert all(part in text for part, text in zip(expected, warnings, strict=True)), (name, warnings)
        if name != "memento/6_santa":
            assert as_json(read) == json.loads(path.read_text(encoding="utf-8"))
            jsonschema.validate(as_json(read), json_schema(read.form))
        for form in FORMS:
            write_story(read, tmp_path / "other.json", form)
            assert read_story(tmp_path / "other.json").form == form
    assert (len(paths), shots) == (45, {"memento": 150, "storymem": 300})


def test_schemas_are_schemas():
    for form in FORMS:
        jsonschema.Draft202012Validator.check_schema(json_schema(form))
    jsonschema.validate(story(), json_schema("memento"))
    for bad in (one(cut=["True", True]), story(scenes=[]), one(prompts=["a man walks"]), story(story_name=5)):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, json_schema("memento"))
