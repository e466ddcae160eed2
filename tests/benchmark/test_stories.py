from __future__ import annotations

import json
from collections import Counter

import pytest

from benchmark.characters import (
    CharacterMapError,
    character_map_value,
    mapped,
    read_character_map,
    told_by,
    with_characters,
)
from benchmark.stories import ShotKey, bare_name, load_stories, load_story, resolve_story
from curation.stories.script import StoryError
from tests.benchmark import made
from tests.support import shared


def kinds(stories):
    pairs = Counter(pair.kind for s in stories.values() for pair in s.adjacent_shots())
    return pairs, sum(len(list(s.scene_changes())) for s in stories.values())


def test_the_original_scripts():
    stories, _ = load_stories([shared("stbench/storymem")])
    assert len(stories) == 30
    assert sum(len(s.shots) for s in stories.values()) == 300
    assert sum(len(s.scenes) for s in stories.values()) == 95
    assert kinds(stories) == ({"continuation": 124, "cut": 81}, 65)
    assert not any(s.characters() for s in stories.values())


def test_the_rewritten_scripts():
    stories, faults = load_stories([shared("stbench/memento")])
    assert len(stories) == 15
    assert kinds(stories) == ({"continuation": 62, "cut": 42, "unknown": 2}, 29)
    assert stories["harry"].overview is None
    assert len(stories["cat"].characters()["Animal A"]) == 10
    assert "Animal A" not in stories["cat"].characters(["Person"])
    assert [f for f in faults if f.startswith("6_santa.json") and "cut has 1 entries" in f]
    originals, _ = load_stories([shared("stbench/storymem")])
    for key, rewritten in stories.items():
        assert [s.key for s in rewritten.shots] == [s.key for s in originals[key].shots]


def test_a_flag_that_the_file_lacks_is_unknown(tmp_path):
    scene = {"scene_num": 1, "video_prompts": ["One.", "Two."], "cut": ["True"]}
    (tmp_path / "0_tale.json").write_text(json.dumps({"story_name": "Tale", "scenes": [scene]}))
    story = load_story(tmp_path / "0_tale.json")
    assert story.key == "tale"
    assert [shot.cut for shot in story.shots] == [True, None]
    assert story.scenes[0].text() == "One. Two."
    assert any("cut" in fault for fault in story.faults)


def test_bad_files_are_said_and_left_out(tmp_path):
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "b.json").write_text(json.dumps({"story_name": "b", "scenes": []}))
    stories, faults = load_stories([tmp_path, tmp_path / "none.json"])
    assert stories == {}
    assert [line.split(":")[0].split("/")[-1] for line in faults] == ["a.json", "b.json", "none.json"]
    with pytest.raises(StoryError, match=r"a\.json"):
        load_story(tmp_path / "a.json")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no .json file" in load_stories([empty])[1][0]


def test_names_of_folders():
    stories = {"tale": made.story("tale", aliases=frozenset({"3_tale", "A_Tale"}))}
    assert bare_name("12_sama_gpu") == "sama_gpu"
    assert [resolve_story(n, stories) for n in ("tale", "3_tale", "A_Tale", "7_tale", "other")] == [
        *["tale"] * 4,
        None,
    ]


def test_adjacency_is_by_declared_number():
    story = made.story(layout=(2, 1, 1))
    gap = story.scenes[0].shots[0], made.story(layout=(3,)).shots[2]
    broken = made.story(layout=(2,))
    scene = type(broken.scenes[0])(number=1, shots=gap)
    assert list(type(broken)(key="x", scenes=(scene, story.scenes[2])).adjacent_shots()) == []
    assert list(type(broken)(key="x", scenes=(scene, story.scenes[2])).adjacent_scenes()) == []
    assert [p[:2] for p in story.scene_changes()] == [((1, 2), (2, 1)), ((2, 1), (3, 1))]


def test_labels_count_in_the_shot_caption_only():
    prompt = "global caption: [Person A]: a man, [Object C]: a cup; shot caption: [Person B] meets [Group A]."
    assert made.story(layout=(1,), prompts=[prompt]).characters() == {
        "Person B": (ShotKey(1, 1),),
        "Group A": (ShotKey(1, 1),),
    }


def test_character_map(tmp_path):
    stories = {"tale": made.story(prompts=["[Person A] sits."] * 2 + ["Rain."] * 3)}
    path = tmp_path / "characters.json"
    value = character_map_value(stories)
    value["stories"]["tale"]["reviewer"] = "ab"
    path.write_text(json.dumps(value))
    read = read_character_map(path, stories)
    assert read.characters == {"tale": stories["tale"].characters()}
    assert mapped(with_characters(stories, read)) == {}  # what the tags say too decides no number
    assert read.reviewers == {"tale": "ab"}
    value["stories"]["tale"]["characters"] = {"Person A": ["01_09", 3], "Person B": [], "C": ["01_01"] * 2}
    value["stories"]["saga"] = {}
    path.write_text(json.dumps(value))
    with pytest.raises(CharacterMapError) as error:
        read_character_map(path, stories)
    assert [line.split(": ", 1)[1] for line in str(error.value).splitlines()] == [
        "tale, Person A: the script has no shot 01_09, 3",
        'tale, Person B: give a list of shots such as ["01_01"]',
        "tale, C: a shot is named twice",
        "saga: no such story; there are tale",
    ]
    path.write_text("[]")
    with pytest.raises(CharacterMapError, match="memento-characters/1"):
        read_character_map(path, stories)


def test_tags_that_do_not_count_are_told():
    prompt = "global caption: [Subject A]: a bear; shot caption: [Subject A] and [Subject B] walk."
    told = told_by(made.story(layout=(1,), prompts=[prompt]))
    assert told == "nobody: tags of Subject; only Person, Animal, Vehicle, Group, Object count without a map"
    assert told_by(made.story(layout=(1,), prompts=["A bear walks."])) == "nobody: no tags"
