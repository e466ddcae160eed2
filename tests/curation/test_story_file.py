"""Files of story scripts: encodings, JSON5, and what is no story at all."""

from __future__ import annotations

import json

import pytest

from curation.stories.file import MAX_BYTES, MAX_JSON5_BYTES
from curation.stories.script import ERROR, WARNING, as_json, check_story, read_story
from tests.curation.test_story_script import said, story


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"", "is empty"),
        (b"  \n", "is empty"),
        (b"not json", "is not JSON: Expecting value at or before line 1, column 1: 'not json'"),
        (b'{"scenes": [}', "at or before line 1, column 13: '{\"scenes\": [}'"),
        (
            b'{\n"story_name": "a"\n  "scenes": []}',
            "is not JSON: Expecting ',' delimiter at or before line 3, column 3: '\"scenes\": []}'",
        ),
        (b'{// of mine\n"a": 1,\n"b" 2}', "nor JSON5 ("),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "is no text"),
        ('{"story_name": "caf\xe9"}'.encode("latin-1"), "line 1 is not UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "is not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"scenes": NaN}', "not finite"),
        (b'{"scenes": 1e999}', "not finite"),
        (b'{"scenes": ' + b"9" * 5000 + b"}", "is not JSON: "),
        (b"// " + b"x" * MAX_JSON5_BYTES, "not tried beyond"),
        (b" " * (MAX_BYTES + 1), "a story script has less than 4"),
    ],
    ids=lambda value: value[:12] if isinstance(value, str) else "",
)
def test_files_that_hold_no_story(tmp_path, data, part):
    path = tmp_path / "bad.json"
    path.write_bytes(data)
    (fault,) = check_story(path)
    assert fault.level == ERROR
    assert part in fault.text
    assert str(fault).isprintable()


def test_places_without_a_file(tmp_path):
    (missing,), (folder,) = check_story(tmp_path / "none.json"), check_story(tmp_path)
    assert "cannot be read (No such file" in missing.text
    assert "is a folder" in folder.text


def test_json5_byte_order_marks_and_doubled_keys(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("// mine\n" + json.dumps(story())[:-1] + ",}", encoding="utf-8")
    assert said(check_story(path), WARNING) == [
        "warning: is JSON5 (comments, trailing commas): other tools want JSON"
    ]
    assert as_json(read_story(path)) == story()
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(story()).encode())
    assert "byte order mark" in said(check_story(path), WARNING)[0]
    path.write_text(json.dumps(story())[:-1] + ', "story_name": "Other"}', encoding="utf-8")
    assert "key 'story_name' is given twice" in said(check_story(path), WARNING)[0]
    assert read_story(path).story_name == "Other"
