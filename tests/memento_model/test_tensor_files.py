"""Weight files that are damaged, wrong or hostile end in one line; good ones are read and written exactly."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import zipfile

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
pytest.importorskip("diffusers")
from safetensors.torch import load_file, safe_open, save_file

from memento_model.checkpoints import tensor_files
from memento_model.checkpoints.tensor_files import (
    fingerprint,
    open_tensors,
    save_json,
    save_tensors,
    stream_tensors,
)
from memento_model.errors import CheckpointError
from tests.memento_model.weights import write_sharded
from tests.support import REPOSITORY

STATE = {
    "b": torch.arange(6.0).view(2, 3),
    "a": torch.ones(3, dtype=torch.bfloat16),
    "c": torch.tensor(2.5, dtype=torch.float16),
}


def refusal(path):
    """The one line with which a file is refused, whether when opened or when read."""

    def read_all():
        tensors = open_tensors(path)
        return [tensors.read(name) for name in tensors]

    with pytest.raises(CheckpointError) as error:
        read_all()
    line = str(error.value)
    assert "\n" not in line
    assert str(path.parent) in line
    return line


def raw(header: dict | bytes, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def entry(start, stop, shape, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def test_written_files_are_the_librarys_and_ours(tmp_path):
    save_tensors(STATE, tmp_path / "new" / "x.safetensors", {"format": "pt"})
    theirs, ours = load_file(tmp_path / "new" / "x.safetensors"), open_tensors(tmp_path / "new")
    for name, value in STATE.items():
        assert torch.equal(theirs[name], value)
        assert torch.equal(ours.read(name), value)
        assert ours[name].dtype == value.dtype
    with safe_open(tmp_path / "new" / "x.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["x.safetensors"]


def test_equal_tensors_make_equal_files_in_any_order(tmp_path):
    save_tensors(STATE, tmp_path / "x.safetensors", {})
    save_tensors(dict(reversed(STATE.items())), tmp_path / "y.safetensors", {})
    assert (tmp_path / "x.safetensors").read_bytes() == (tmp_path / "y.safetensors").read_bytes()


def test_views_and_empty_tensors_are_written_as_values(tmp_path):
    state = {"view": torch.arange(12.0).view(3, 4).T[1:], "empty": torch.zeros(0, 4)}
    save_tensors(state, tmp_path / "x.safetensors", {})
    loaded = open_tensors(tmp_path / "x.safetensors")
    assert all(torch.equal(loaded.read(name), value) for name, value in state.items())


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.safetensors"
    save_tensors(STATE, path, {})
    before = path.read_bytes()

    def failing(name):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stream_tensors({"z": (torch.float32, (2,))}, failing, path, {})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_sharded_files_are_one_set(tmp_path):
    state = {f"layer.{i}": torch.randn(4, generator=torch.Generator().manual_seed(i)) for i in range(7)}
    write_sharded(state, tmp_path / "w", 3)
    for place in (tmp_path / "w", tmp_path / "w" / "diffusion_pytorch_model.safetensors.index.json"):
        tensors = open_tensors(place)
        assert len(tensors) == 7
        assert len(tensors.files) == 3
        assert all(torch.equal(tensors.read(name), state[name]) for name in state)


def test_pickles_of_tensors_are_read_flat_or_inside_a_training_state(tmp_path):
    state = {name: value for name, value in STATE.items()}
    torch.save(state, tmp_path / "flat.pth")
    training = {
        "epoch": 3,
        "global_step": 7,
        "trainable": state,
        "optimizer": {"state": {}, "param_groups": []},
    }
    torch.save(training, tmp_path / "step.pth")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for name in ("flat.pth", "step.pth", "old.pth"):
        tensors = open_tensors(tmp_path / name)
        assert set(tensors) == set(STATE)
        assert all(torch.equal(tensors.read(key), value) for key, value in STATE.items())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "cut short"),
        (b"\x08", "cut short"),
        ((1 << 60).to_bytes(8, "little"), "cut short"),
        (raw(b"{not json"), "not valid JSON"),
        (raw(b"[" * 100_000), "not valid JSON"),
        (raw(b"[1]"), "not a JSON object"),
        (raw({"a": entry(0, 8, [2])}, b"\0" * 4), "lies outside the file"),
        (raw({"a": entry(0, 4, [2])}, b"\0" * 4), "lies outside"),
        (raw({"a": entry(0, 8, [2])}, b"\0" * 12), "4 bytes belong to no tensor"),
        (raw({"a": entry(0, 8, [2]), "b": entry(4, 12, [2])}, b"\0" * 12), "overlaps"),
        (raw({"a": entry(-8, 0, [2])}, b"\0" * 8), "no valid entry"),
        (raw({"a": entry(0, 8, [1 << 40, 1 << 40])}, b"\0" * 8), "lies outside"),
        (raw({"a": {"dtype": "F32"}}), "no valid entry"),
        (raw({"a": 7}), "no valid entry"),
        (raw({"a": entry(0, 2, [2], "I8")}, b"\0" * 2), "quantised"),
        (raw({"a": entry(0, 2, [2], "F8_E4M3")}, b"\0" * 2), "quantised"),
        (raw({"a": entry(0, 4, [1])}, b"\0\0\xc0\x7f"), "a holds NaN or infinity"),
        (raw({"a": entry(0, 4, [1])}, b"\0\0\x80\x7f"), "a holds NaN or infinity"),
        (raw(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
             b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"\0" * 4), "a is listed twice"),
        (raw(b'{"\xff":1}'), "not valid JSON"),
    ],
)  # fmt: skip
def test_damaged_safetensors_are_refused(tmp_path, content, says):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    assert says in refusal(path)


def test_every_truncation_is_noticed(tmp_path):
    save_file(STATE, tmp_path / "whole.safetensors")
    whole = (tmp_path / "whole.safetensors").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "w.safetensors").write_bytes(whole[:length])
        refusal(tmp_path / "w.safetensors")


class Bomb:
    def __reduce__(self):
        return os.system, ("touch exploded",)


@pytest.mark.parametrize("protocol", [2, 4])
def test_pickles_with_code_are_not_run(tmp_path, monkeypatch, protocol):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bare.pth").write_bytes(pickle.dumps({"a": Bomb()}, protocol=protocol))
    torch.save({"a": torch.ones(1), "b": Bomb()}, tmp_path / "zipped.pth", pickle_protocol=protocol)
    for name in ("bare.pth", "zipped.pth"):
        says = refusal(tmp_path / name)
        assert "not opened" in says
        assert "weights_only" not in says, "no advice to open it all the same"
    assert not (tmp_path / "exploded").exists()


def test_archives_that_pytorch_does_not_write_are_refused(tmp_path):
    torch.save({"a": torch.ones(4)}, tmp_path / "good.pth")
    for name, change in (
        (
            "slip",
            lambda n: n.replace("archive/data/0", "archive/../../data/0").replace("good/data/0", "../x"),
        ),
        ("absolute", lambda n: "/" + n),
    ):
        with (
            zipfile.ZipFile(tmp_path / "good.pth") as old,
            zipfile.ZipFile(tmp_path / f"{name}.pth", "w") as new,
        ):
            for part in old.namelist():
                new.writestr(change(part), old.read(part))
        assert "PyTorch does not write" in refusal(tmp_path / f"{name}.pth")
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as new:
        new.writestr("bomb/data.pkl", b"\0" * 1_000_000)
    assert "PyTorch does not write" in refusal(tmp_path / "bomb.pth")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({}, "no (or more than one) dict"),
        ([torch.ones(1)], "no (or more than one) dict"),
        ({"a": 1}, "no (or more than one) dict"),
        ({"x": {"a": torch.ones(1)}, "y": {"a": torch.ones(1)}}, "no (or more than one) dict"),
        ({"a": torch.ones(1).expand(1 << 40)}, "no plain tensor"),
        ({"a": torch.ones(2, dtype=torch.int64)}, "quantised"),
        ({"a": torch.ones(2, 2).to_sparse()}, "no plain tensor"),
        ({"a": torch.tensor([float("inf")])}, "NaN or infinity"),
    ],
)
def test_pickles_of_other_things_are_refused(tmp_path, value, says):
    torch.save(value, tmp_path / "w.pth")
    assert says in refusal(tmp_path / "w.pth")


def test_truncated_pickles_are_refused(tmp_path):
    buffer = io.BytesIO()
    torch.save({"a": torch.randn(64)}, buffer)
    whole = buffer.getvalue()
    for length in range(0, len(whole), 97):
        (tmp_path / "w.pth").write_bytes(whole[:length])
        refusal(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda i: i["weight_map"].update({"layer.0": "../secret.safetensors"}),
            "no .safetensors file of this",
        ),
        (lambda i: i["weight_map"].update({"layer.0": "/etc/passwd"}), "no .safetensors file of this"),
        (lambda i: i["weight_map"].update({"layer.0": "..\\x.safetensors"}), "no .safetensors file of this"),
        (lambda i: i["weight_map"].update({"layer.0": 5}), "no .safetensors file of this"),
        (lambda i: i["weight_map"].update({"layer.0": "more.safetensors"}), "missing, the index asks for it"),
        (lambda i: i["weight_map"].pop("layer.0"), "holds layer.0, but the index does not list it"),
        (lambda i: i["weight_map"].update(extra=i["weight_map"]["layer.0"]), "lacks extra"),
        (lambda i: i.pop("weight_map"), "no weight_map"),
    ],
)
def test_wrong_indices_are_refused(tmp_path, change, says):
    write_sharded({f"layer.{i}": torch.ones(2) for i in range(4)}, tmp_path / "w", 2)
    path = tmp_path / "w" / "diffusion_pytorch_model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))
    assert says in refusal(path)


def test_a_name_in_two_shards_is_refused(tmp_path):
    write_sharded({f"layer.{i}": torch.ones(2) for i in range(4)}, tmp_path / "w", 2)
    first = tmp_path / "w" / "diffusion_pytorch_model-00001-of-00002.safetensors"
    save_file(load_file(first) | {"layer.1": torch.zeros(2)}, first)
    index = tmp_path / "w" / "diffusion_pytorch_model.safetensors.index.json"
    assert "holds layer.1, but the index says" in refusal(index)


def test_places_without_weights_are_refused(tmp_path):
    assert "no such file" in refusal(tmp_path / "nothing")
    (tmp_path / "notes.txt").write_text("hello")
    assert "no weight file" in refusal(tmp_path / "notes.txt")
    (tmp_path / "w").mkdir()
    assert "holds no weights" in refusal(tmp_path / "w")
    for name in "ab":
        save_file(STATE, tmp_path / "w" / f"{name}.safetensors")
    assert "no index" in refusal(tmp_path / "w")


def test_renaming_refuses_two_names_for_one_tensor(tmp_path):
    save_tensors(STATE, tmp_path / "x.safetensors", {})
    with pytest.raises(CheckpointError, match="are the same tensor"):
        open_tensors(tmp_path / "x.safetensors").renamed(lambda name: "one")


def test_fingerprints_follow_the_contents(tmp_path):
    save_tensors(STATE, tmp_path / "x.safetensors", {})
    save_tensors(STATE, tmp_path / "y.safetensors", {})
    save_tensors(STATE | {"c": torch.tensor(3.0)}, tmp_path / "z.safetensors", {})
    x, y, z = (fingerprint([tmp_path / f"{name}.safetensors"]) for name in "xyz")
    assert x == y != z


def test_one_number_in_the_middle_of_a_file_is_another_fingerprint(tmp_path, monkeypatch):
    file = tmp_path / "x.safetensors"
    save_tensors({"many": torch.zeros(5 << 20)}, file, {})
    before = fingerprint([file])
    with file.open("r+b") as opened:
        opened.seek(5_300_000)
        opened.write(b"\x01")
    assert fingerprint([file]) != before
    monkeypatch.setattr(tensor_files, "WHOLE_BYTES", 1 << 20)  # of larger files only samples are read
    sampled = fingerprint([file])
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    assert fingerprint([file]) != sampled


def test_json_is_replaced_whole(tmp_path):
    save_json({"a": 1}, tmp_path / "x.json")
    with pytest.raises(TypeError):
        save_json({"a": object()}, tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_big_files_stay_on_the_disk(tmp_path):
    """A file of 268 MB, read whole and assigned to a module, costs next to no memory of its own."""
    size = 1 << 26
    header = json.dumps({"weight": entry(0, 4 * size, [1 << 13, 1 << 13])}).encode()
    with (tmp_path / "w.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 4 * size)  # a sparse file of zeros
    code = f"""
import torch
from memento_model.checkpoints.tensor_files import open_tensors
def own():
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1])
with torch.device("meta"):
    layer = torch.nn.Linear(1 << 13, 1 << 13, bias=False)
before = own()
from pathlib import Path
open_tensors(Path({str(tmp_path)!r})).fill(layer, dtype=lambda _: torch.float32)
print(own() - before, layer.weight.shape, layer.weight.device)
"""
    if not os.path.exists("/proc/self/status"):
        pytest.skip("needs /proc to see a process's own memory")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert int(done.stdout.split()[0]) < 50_000, done.stdout
