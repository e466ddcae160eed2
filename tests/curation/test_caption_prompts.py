"""Prompt files: ours are complete, the user's are checked, and what is put in stays data."""

from __future__ import annotations

import pytest

from curation.captions.prompts import OURS, PLACEHOLDERS, STAGES, load_prompts
from curation.config import SettingsError, build
from curation.stages.captions import Captions


def test_ours_have_every_placeholder_they_need_and_no_other(tmp_path):
    for name in PLACEHOLDERS:  # a user may start from a copy of ours
        (tmp_path / f"{name}.txt").write_text((OURS / f"{name}.txt").read_text())
    assert load_prompts(str(tmp_path)) == load_prompts()
    assert sorted(path.stem for path in OURS.iterdir()) == sorted(PLACEHOLDERS)


def test_what_is_put_in_is_data():
    prompts = load_prompts()
    text = prompts.fill("repair", answer="{faults} {nobody} \\1 {", faults="- one")
    assert "{faults} {nobody} \\1 {" in text
    assert text.count("- one") == 1


def test_a_file_left_out_is_ours_and_only_its_stages_change(tmp_path):
    (tmp_path / "shot.txt").write_text("Shot {number} with {visible}.\n{inventory}\n")
    (tmp_path / "notes.md").write_text("not a prompt")
    theirs, ours = load_prompts(str(tmp_path)), load_prompts()
    assert [theirs.hash(stage) == ours.hash(stage) for stage in STAGES] == [True, False, True]
    assert theirs.texts["system"] == ours.texts["system"]
    assert theirs.fill("shot", number=3, visible="{label}", inventory="x") == "Shot 3 with {label}.\nx"


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (None, None, r"missing is not a folder"),
        ("shots.txt", "x", r"shots\.txt has no use; the files are system\.txt, facts\.txt"),
        ("notes.md", "x", r"holds none of system\.txt"),
        ("story.txt", " \n", r"story\.txt is empty; leave the file out"),
        ("story.txt", "{lables}", r"story\.txt has the placeholder \{lables\}; known here: .*\{labels\}"),
        ("system.txt", "{labels}", r"system\.txt has the placeholder \{labels\}; known here: none"),
        ("recon.txt", "Describe it.", r"recon\.txt lacks the placeholder \{label\}"),
        ("story.txt", b"\xff\xfe", r"story\.txt cannot be read as UTF-8 text"),
    ],
)
def test_a_mistake_is_told_with_its_file(tmp_path, file, text, message):
    folder = tmp_path if file else tmp_path / "missing"
    if file:
        (folder / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message):
        load_prompts(str(folder))
    with pytest.raises(SettingsError, match="^datasets.yaml: mine: captions: prompts: .*" + message):
        build(Captions, {"prompts": str(folder)}, "datasets.yaml: mine: captions")


def test_braces_that_are_no_placeholder_are_text(tmp_path):
    (tmp_path / "system.txt").write_text('Answer as {"caption": "..."}, {} or {A}.')
    prompts = load_prompts(str(tmp_path))
    assert prompts.fill("system") == 'Answer as {"caption": "..."}, {} or {A}.'
