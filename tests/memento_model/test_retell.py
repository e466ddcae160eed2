"""A run leaves a story in the words of its data; from training to the retold film in one go."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("peft")

from PIL import Image
from rich.console import Console

from curation.stories.script import read_story
from memento_model.checkpoints.forms import open_checkpoint
from memento_model.training.inputs import read_inputs
from memento_model.training.retell import choose, remembered, story_of, write_retelling
from pipelines import generate_command, train_command
from tests.memento_model.films import caption, config, write_dataset
from tests.memento_model.tiny import GRID


@pytest.fixture
def dataset(tmp_path):
    return write_dataset(tmp_path / "set")


def test_the_captions_become_shots_and_the_first_clip_what_is_remembered(dataset, tmp_path):
    sequences = read_inputs(config(dataset, tmp_path / "cache")).sequences
    script = write_retelling(sequences, tmp_path / "run", GRID)
    story = read_story(script)
    assert [shot.prompt for shot in story.shots] == [caption(1), caption(2)]
    assert all(shot.cut for shot in story.shots)
    assert story.cast == [("[Person A]", "a diver in red")]
    assert not [fault for fault in story.faults if fault.level != "note"]
    pictures = sorted((script.parent / "references").iterdir())
    assert [path.name for path in pictures] == [f"{n:02d}.png" for n in range(8)]
    with Image.open(pictures[0]) as first:
        assert first.size == (GRID.width, GRID.height)
    assert len({path.read_bytes() for path in pictures}) == 8
    before = script.read_bytes()
    assert write_retelling(sequences, tmp_path / "run", GRID).read_bytes() == before


def test_a_sequence_with_a_subject_is_preferred(dataset, tmp_path):
    first, last = read_inputs(config(dataset, tmp_path / "cache")).sequences
    assert choose([first, last]) is last
    assert choose([first, replace(last, targets=())]) is first
    late = replace(last, targets=tuple(replace(one, clip=1) for one in last.targets))
    assert (remembered(last), remembered(late)) == (1, 2)
    assert choose([first, late]) is first  # which leaves more to tell
    assert [shot.prompt for shot in story_of(late).shots] == [caption(2)]
    assert remembered(replace(last, targets=(replace(late.targets[0], clip=2),))) == 2


def test_a_clip_that_is_gone_ends_no_run(dataset, tmp_path):
    sequences = read_inputs(config(dataset, tmp_path / "cache")).sequences
    Path(choose(sequences).clips[0].path).unlink()
    assert write_retelling(sequences, tmp_path / "run", GRID) is None


def test_from_training_to_the_retold_film(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    said = StringIO()
    order = train_command.Order(
        dataset=dataset, output=Path("run"), settings=["steps=2", "watch.sample_every=0"]
    )
    train_command.main(order, Console(file=said, soft_wrap=True))
    lines = said.getvalue().splitlines()
    assert (
        "2 sequences to train on, none held out: data.validation_share is 0 in this run, so"
        in said.getvalue()
    )
    assert lines[-2:] == [
        "Tell a story with it: memento generate --model run",
        "Have it tell what it was trained on, in the words it knows: memento generate "
        "run/retell/retold.json --reference run/retell/references --model run",
    ]
    exported = StringIO()
    train_command.main(replace(order, export=Path("files")), Console(file=exported, soft_wrap=True))
    assert sorted(path.name for path in Path("files").iterdir()) == [
        "high_noise.safetensors", "low_noise.safetensors",
    ]  # fmt: skip
    assert open_checkpoint(Path("files")).notes["high"]["step"] == 2
    assert "note: debug trains its base as well, which these files do not hold" in exported.getvalue()
    told = StringIO()
    retell = generate_command.Order(
        stories=[Path("run/retell/retold.json")], references=[Path("run/retell/references")], steps=1
    )
    (film,) = generate_command.main(
        retell, {"model": "run", "device": "cpu"}, Console(file=told, soft_wrap=True)
    )
    assert film == Path("out/generate/retold/story.mp4")
    assert "training: debug, 2 of 2 steps" in told.getvalue()
    expected = "debug model, 2 steps of training: expect noise"
    assert f"note: {expected}" in told.getvalue()
    page = (film.parent / "index.html").read_text()
    assert f'<div class="warning">{expected}' in page
    assert "<th>guidance</th><td>1</td>" in page  # it has never seen a negative prompt
    assert "1/2 01_01 MR2V" in told.getvalue()
    assert "see what it did learn" not in told.getvalue()
    other = StringIO()
    short = generate_command.Order(steps=1, shots=1)
    generate_command.main(short, {"model": "run", "device": "cpu"}, Console(file=other, soft_wrap=True))
    torch.set_num_threads(threads)
    line = "note: see what it did learn: memento generate run/retell/retold.json --reference run/retell/refer"
    assert line in other.getvalue()
