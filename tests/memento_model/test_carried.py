"""Settings of a training go along inside exported files, and are not believed blindly."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("peft")

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from memento_model.checkpoints import names
from memento_model.checkpoints.carried import KEY
from memento_model.checkpoints.convert import convert
from memento_model.checkpoints.foreign_config import to_our_config
from memento_model.checkpoints.load import CheckpointError, open_checkpoint, save_expert
from tests.memento_model.weights import TINY, random_trainable, spelt

NOTES = {
    "step": 60,
    "samples": 60,
    "weights": "trained",
    "base": "/mnt/me/wan",
    "config": {
        "name": "ablation_query",
        "expert": "low",
        "codec": "wan",
        "steps": 6000,
        "base": "/mnt/me/wan",
        "output": "/mnt/me/out",
        "data": {"dataset": "/mnt/me/films"},
        "objective": {"learnable_query": True, "split_attention": False, "identity_probability": 0.0},
        "compat": {"no_identity_attention": "blend"},
    },
}


def exported(folder, to="official", notes=NOTES, queries=True):
    """The file that a checkpoint of ours becomes."""
    save_expert(folder / "ours", "low", TINY, trainable=random_trainable(queries=queries), notes=notes)
    convert(folder / "ours", folder / "out", to)
    [file] = (folder / "out").iterdir()
    return file


def texts(file):
    with safe_open(file, "pt") as opened:
        return opened.metadata()


def rewritten(file, change):
    """The same tensors with other settings in the header."""
    told = json.loads(texts(file)[KEY])
    change(told)
    save_file(load_file(file), file, {KEY: json.dumps(told)})
    return file


def test_settings_go_there_and_back_without_paths_of_the_machine(tmp_path):
    file = exported(tmp_path)
    assert "/mnt/me" not in texts(file)[KEY]
    assert texts(file)["format"] == "pt"  # what others look for
    told = open_checkpoint(file).notes["low"]
    assert told["step"] == 60
    assert told["config"]["objective"] == NOTES["config"]["objective"]
    assert "output" not in told["config"]
    convert(file, tmp_path / "back", "ours")
    back = open_checkpoint(tmp_path / "back")
    assert back.notes["low"]["config"] == told["config"]
    assert back.trainable("low")[1] == TINY  # heads and picks too, which shapes do not tell


def test_the_tensors_are_those_of_the_released_layout(tmp_path):
    state = load_file(exported(tmp_path))
    expected = spelt(random_trainable(), names.OFFICIAL["low"])
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in state)


def test_a_name_of_the_table_stays(tmp_path):
    notes = {**NOTES, "config": {**NOTES["config"], "base": "wan22_i2v_a14b"}}
    assert open_checkpoint(exported(tmp_path, notes=notes)).notes["low"]["config"]["base"] == "wan22_i2v_a14b"


def test_files_without_settings_stay_without(tmp_path):
    save_file(spelt(random_trainable(), names.OFFICIAL["low"]), tmp_path / "low_noise.safetensors")
    assert open_checkpoint(tmp_path / "low_noise.safetensors").notes == {}
    convert(tmp_path / "low_noise.safetensors", tmp_path / "again", "official")
    assert texts(tmp_path / "again" / "low_noise.safetensors") == {"format": "pt"}


def test_storymems_form_tells_only_what_is_still_true(tmp_path):
    assert KEY not in texts(exported(tmp_path / "a", "storymem"))  # the queries are gone
    objective = {**NOTES["config"]["objective"], "learnable_query": False}
    plain = {**NOTES, "config": {**NOTES["config"], "objective": objective}}
    file = exported(tmp_path / "b", "storymem", plain, queries=False)
    assert open_checkpoint(file).notes["low"]["config"]["objective"] == objective


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda told: told.update(version=9), "its settings are of version 9; this program reads 1"),
        (lambda told: told.update(expert="high"), "trained as the high-noise expert, not the low-noise one"),
        (lambda told: told.update(notes=[]), "settings in its header .* are damaged"),
        (lambda told: told["notes"].update(config=3), "settings in its header .* are damaged"),
        (lambda told: told["notes"]["config"].update(compat=3), "setting compat is 3, not a set"),
        (
            lambda told: told["notes"]["config"]["compat"].update(storymem_offset="rm"),
            "storymem_offset is 'rm'",
        ),
        (lambda told: told["notes"]["config"]["compat"].update(lora_scale="x"), "compat.lora_scale is 'x'"),
        (lambda told: told["notes"]["config"]["objective"].update(split_attention=1), "split_attention is 1"),
        (lambda told: told["model"].pop("width"), r"`model` does not hold exactly our settings \(see width"),
        (lambda told: told["model"].update(lora_rank=9), "0 of 64 tensors|of 64 tensors fit"),
        (
            lambda told: told["notes"]["config"]["objective"].update(learnable_query=False),
            "trained without queries, as its settings say, but holds queries",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused_in_a_line(tmp_path, change, says):
    file = rewritten(exported(tmp_path), change)
    with pytest.raises(CheckpointError, match=says) as refused:
        open_checkpoint(file).trainable("low")
    assert len(str(refused.value).splitlines()) == 1
    assert str(refused.value).startswith(str(file))


def test_damaged_settings_are_refused_in_a_line(tmp_path):
    file = exported(tmp_path)
    for text in ("{", "[]", "[" * 100_000):
        save_file(load_file(file), file, {KEY: text})
        with pytest.raises(CheckpointError, match=r"settings in its header .* are damaged; export it again"):
            open_checkpoint(file)


def test_the_model_of_the_settings_is_the_models_own(tmp_path):
    told = json.loads(texts(exported(tmp_path))[KEY])
    assert told["model"] == to_our_config(TINY)
