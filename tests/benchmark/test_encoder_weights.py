from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from types import SimpleNamespace

import pytest

from benchmark.encoders import weights
from benchmark.encoders.base import EncodersMissing
from benchmark.encoders.memo import FileFacts, Memo
from curation import weights as shared_weights
from curation.weights import WeightsDamaged, WeightsMissing

CONTENT = b"not really weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """A machine without weights; where they would be."""
    made = tmp_path / "weights"
    monkeypatch.setenv("MEMENTO_WEIGHTS", str(made))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("HF_HOME", "HF_HUB_CACHE", "TORCH_HOME"):
        monkeypatch.delenv(name, raising=False)
    return made


@pytest.fixture
def known(monkeypatch):
    """Whose published hash is that of CONTENT: CLIP B/32."""
    one = weights.TABLE["clip-b32"]
    files = tuple(replace(file, sha256=SHA256) if file.sha256 else file for file in one.files)
    monkeypatch.setitem(weights.TABLE, "clip-b32", replace(one, files=files))


def put(path, content=CONTENT):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def hub(cache, name, number=0, revision=""):
    file = weights.TABLE[name].files[number]
    revision = revision or file.revision
    repository = "models--" + file.repository.replace("/", "--")
    return cache / repository / "snapshots" / revision / file.file


@pytest.mark.parametrize("name", weights.TABLE)
def test_missing_weights_say_where_and_how(folder, name):
    assert weights.here(name) is None
    with pytest.raises(EncodersMissing) as caught:
        weights.find(name)
    line = str(caught.value)
    assert line.startswith(f"{name}: no weights on this machine (looked in {folder}")
    assert f"memento weights pull {name}" in line
    assert "\n" not in line
    assert "$" not in line


@pytest.mark.parametrize(
    "place",
    [
        "weights/clip-b32.safetensors",
        "weights/clip-b32.bin",
        "weights/clip-b32/pytorch_model.bin",
        "weights/clip-vit-base-patch32/model.safetensors",
        "weights/ViT-B-32.pt",
        "home/.cache/clip/ViT-B-32.pt",
        "home/.cache/huggingface/hub/models--timm--vit_base_patch32_clip_224.openai/snapshots/abc/"
        "open_clip_model.safetensors",
    ],
)
def test_places(folder, known, tmp_path, place):
    path = put(tmp_path / place)
    found = weights.find("clip-b32")
    assert found.path == path
    assert found.sha256 == SHA256
    assert weights.here("clip-b32") == path


def test_torchs_own_cache(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    path = put(tmp_path / "torch" / "hub" / "checkpoints" / "dinov2_vitb14_pretrain.pth")
    assert weights.here("dinov2-b14") == path


def test_the_hubs_cache_below_our_folder_and_its_pinned_commit_come_first(folder, known, tmp_path):
    other = put(hub(folder / "hub", "clip-b32", revision="0" * 40))
    assert weights.find("clip-b32").path == other
    pinned = put(hub(folder / "hub", "clip-b32"))
    assert weights.find("clip-b32").path == pinned


def test_a_wrong_hash_in_a_cache_is_refused(folder, tmp_path):
    path = put(hub(folder / "hub", "clip-b32"))
    with pytest.raises(WeightsDamaged) as caught:
        weights.find("clip-b32")
    line = str(caught.value)
    assert (
        f"clip-b32: {path} is damaged or another file (SHA-256 {SHA256[:12]}..., expected a63082132ba4"
        in line
    )
    assert "remove it and run: memento weights pull clip-b32" in line


@pytest.mark.parametrize("right", [True, False])
def test_the_hubs_own_name_of_a_file_is_its_hash(folder, right):
    """Where nobody published a hash, the cache's link tells what the hub said."""
    link = hub(folder / "hub", "viclip-b16")
    blob = put(link.parents[2] / "blobs" / (SHA256 if right else "0" * 64))
    link.parent.mkdir(parents=True)
    link.symlink_to(os.path.relpath(blob, link.parent))
    if right:
        assert weights.find("viclip-b16").sha256 == SHA256
    else:
        with pytest.raises(WeightsDamaged, match="expected 000000000000"):
            weights.find("viclip-b16")


def test_notes_are_honest(folder, known, tmp_path):
    path = put(tmp_path / "my.safetensors")
    assert weights.find("clip-b32", str(path)).note == ""
    other = put(tmp_path / "other.safetensors", b"other")
    assert "is not that of a published file" in weights.find("clip-b32", str(other)).note
    assert "is recorded, there is none to compare" in weights.find("viclip-b16", str(path)).note


def test_a_given_path_is_the_only_place(folder, tmp_path):
    put(folder / "viclip-b16.safetensors")
    with pytest.raises(EncodersMissing, match=r"viclip-b16: no file at .*; correct the path or leave it out"):
        weights.find("viclip-b16", str(tmp_path / "absent"))
    with pytest.raises(EncodersMissing, match=r"holds none of model\.safetensors"):
        weights.find("viclip-b16", str(tmp_path))
    inside = put(tmp_path / "mine" / "model.safetensors")
    assert weights.find("viclip-b16", str(tmp_path / "mine")).path == inside


def test_hashes_are_computed_once_and_again_when_the_file_changes(folder, monkeypatch, tmp_path):
    path, asked = put(tmp_path / "w.safetensors"), []

    def hashed(place):
        asked.append(place)
        return hashlib.sha256(place.read_bytes()).hexdigest()

    monkeypatch.setattr(shared_weights, "sha256_of", hashed)
    first = [weights.find("viclip-b16", str(path)).sha256 for _ in range(3)]
    assert first == [SHA256] * 3
    assert asked == [path]
    put(path, b"changed")
    assert weights.find("viclip-b16", str(path)).sha256 == hashlib.sha256(b"changed").hexdigest()
    assert len(asked) == 2


def test_a_damaged_or_unwritable_memo_is_as_good_as_none(folder, monkeypatch, tmp_path):
    path = put(tmp_path / "w.safetensors")
    put(folder / "encoder_files.json", b"{ broken")
    assert weights.find("viclip-b16", str(path)).sha256 == SHA256
    assert FileFacts().get(path, "sha256") == SHA256
    put(tmp_path / "file", b"")
    monkeypatch.setenv("MEMENTO_WEIGHTS", str(tmp_path / "file"))
    assert weights.find("viclip-b16", str(path)).sha256 == SHA256
    assert Memo("anything.json").get("key") == ""


def downloads(monkeypatch, give):
    asked = []

    def hf_hub_download(repository, file, revision, cache_dir):
        asked.append((repository, file, revision, cache_dir))
        return give()

    library = SimpleNamespace(hf_hub_download=hf_hub_download)
    monkeypatch.setattr(weights, "require", lambda module, extra: library)
    return asked


def test_pull_fetches_the_pinned_file_and_checks_it(folder, known, monkeypatch):
    path = put(hub(folder / "hub", "clip-b32"))
    asked = downloads(monkeypatch, lambda: str(path))
    assert weights.pull("clip-b32") == path
    first = weights.TABLE["clip-b32"].files[0]
    assert asked == [
        ("openai/clip-vit-base-patch32", "pytorch_model.bin", first.revision, str(folder / "hub"))
    ]


def test_pull_of_another_file_is_refused(folder, monkeypatch):
    path = put(hub(folder / "hub", "clip-b32"))
    downloads(monkeypatch, lambda: str(path))
    with pytest.raises(WeightsDamaged, match="clip-b32"):
        weights.pull("clip-b32")


def test_a_failed_pull_says_where_to_put_the_file(folder, monkeypatch):
    def fail():
        raise OSError("no route to host\nand more")

    downloads(monkeypatch, fail)
    with pytest.raises(WeightsMissing) as caught:
        weights.pull("viclip-l14")
    line = str(caught.value)
    assert "cannot download model.safetensors of OpenGVLab/ViCLIP-L-14-hf (no route to host)" in line
    assert line.endswith(f"put it at {folder / 'viclip-l14.safetensors'}")


def test_the_table_is_complete():
    for name, one in weights.TABLE.items():
        assert one.licence
        assert one.what
        assert one.files[0].repository, f"{name}: pull fetches the first file from the hub"
        for file in one.files:
            assert not file.sha256 or (len(file.sha256) == 64 and int(file.sha256, 16))
            assert not file.revision or len(file.revision) == 40
    assert len(weights.TORCHSCRIPT) == 2
