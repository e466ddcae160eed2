from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("open_clip")

import torch

from benchmark.encoders import load
from benchmark.encoders.load import chosen_device, encoders_for, needed
from benchmark.evaluation import EncoderFact
from benchmark.presets import PRESETS, preset
from curation.optional import install_command
from tests.benchmark import small_encoders
from tests.benchmark.small_encoders import clip_state, dinov2_state, pictures, viclip_state, write

MEMENTO = PRESETS["memento"]


@pytest.fixture
def full(small):
    """A machine with all weights."""
    write(viclip_state(), small / "viclip-b16.safetensors")
    write(clip_state(2), small / "clip-b32.safetensors")
    write(clip_state(3), small / "clip-l14.safetensors")
    torch.save(dinov2_state(), small / "dinov2-b14.pth")
    return small


def by_kind(made):
    return {encoder.kind: encoder for encoder in made.frames}


def test_needed_encoders():
    assert needed(MEMENTO) == ("viclip-b16", "clip-b32", "clip-l14", "dinov2-b14")
    assert needed(PRESETS["storymem"]) == ("viclip-l14", "clip-l14")
    assert needed(preset("memento", viclip="viclip-l14"))[0] == "viclip-l14"


def test_missing_encoders_are_listed_and_nothing_is_raised(small):
    made = encoders_for(MEMENTO)
    assert (made.frames, made.clips, made.names, made.weights) == ((), None, (), {})
    assert set(made.missing) == {*needed(MEMENTO), "aes-mlp", "aes-linear"}
    for name in needed(MEMENTO):
        assert f"memento weights pull {name}" in made.missing[name]
    assert made.missing["aes-mlp"] == f"needs clip-l14: {made.missing['clip-l14']}"


def test_one_missing_encoder_leaves_the_others(full):
    (full / "dinov2-b14.pth").unlink()
    made = encoders_for(MEMENTO)
    assert set(by_kind(made)) == {"clip_b32", "clip_l14"}
    assert made.clips is not None
    assert set(made.missing) == {"dinov2-b14"}


def test_features(full):
    made = encoders_for(MEMENTO)
    assert made.missing == {}
    assert [fact.name for fact in made.facts] == [*needed(MEMENTO), "aes-mlp", "aes-linear"]
    widths = {"clip_b32": 32, "clip_l14": 32, "dino_b14": 48}
    for kind, encoder in by_kind(made).items():
        features = encoder.encode(pictures(3))
        assert features.shape == (3, widths[kind])
        assert features.dtype == np.float32
        assert np.isfinite(features).all()
        assert not np.allclose(np.linalg.norm(features, axis=1), 1, atol=1e-3)
    clips = made.clips.encode(pictures(16).reshape(2, 8, 224, 224, 3))
    texts = made.clips.encode_texts(["a red fox", "", "a red fox"])
    assert clips.shape == (2, 32)
    assert texts.shape == (3, 32)
    assert texts.dtype == np.float32
    assert np.array_equal(texts[0], texts[2])
    assert made.clips.tokenize("a red fox") == [320, 736, 3240]


def test_features_do_not_depend_on_the_batch(full, monkeypatch):
    made = encoders_for(MEMENTO)
    for encoder in made.frames:
        given = pictures(7)
        whole = encoder.encode(given)
        parts = np.concatenate(
            [encoder.encode(given[:3]), encoder.encode(given[3:4]), encoder.encode(given[4:])]
        )
        assert np.abs(whole - parts).max() < 1e-5
        assert encoder.encode(given[:0]).shape[0] == 0
    given = pictures(24).reshape(3, 8, 224, 224, 3)
    alone = np.concatenate([made.clips.encode(clip[None]) for clip in given])
    assert np.abs(made.clips.encode(given) - alone).max() < 1e-5
    texts = [f"number {i}" for i in range(70)]
    alone = np.concatenate([made.clips.encode_texts([text]) for text in texts])
    assert np.abs(made.clips.encode_texts(texts) - alone).max() < 1e-5
    assert made.clips.encode_texts([]).shape[0] == 0


def test_wide_pictures(full):
    made = encoders_for(preset("memento", crop="full"))
    frames = pictures(2, (480, 832))
    for encoder in made.frames:
        small = encoder.pixels.pictures(frames)
        assert small.shape == (2, 224, 392, 3)
        if encoder.kind.startswith("clip"):
            assert encoder.encode(small).shape == (2, 32)


def test_modules_are_loaded_once(full, monkeypatch):
    encoders_for(MEMENTO)
    built = []
    from benchmark.encoders import tensors

    monkeypatch.setattr(tensors, "read_state", lambda *a: built.append(a))
    again = encoders_for(preset("memento", crop="squash"))
    for encoder in again.frames:
        encoder.encode(pictures(1))
    assert built == []


def test_identities_tell_apart_what_decides_features(full):
    def identities(chosen=MEMENTO, **options):
        made = encoders_for(chosen, **options)
        return {e.kind: e.identity for e in (*made.frames, made.clips)}

    first = identities()
    assert len(set(first.values())) == 4
    assert identities() == first
    assert identities(precision="bf16").keys() == first.keys()
    assert not set(identities(precision="bf16").values()) & set(first.values())
    assert not set(identities(random=True).values()) & set(first.values())
    squash = identities(preset("memento", crop="squash"))
    assert squash["viclip"] == first["viclip"]
    assert all(squash[kind] != first[kind] for kind in first if kind != "viclip")
    other = identities(preset("memento", viclip_pixels="squash-clip"))
    assert other["viclip"] != first["viclip"]
    write(clip_state(9), full / "clip-b32.safetensors")
    assert identities()["clip_b32"] != first["clip_b32"]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_other_precisions_give_float32_features_nearby(full, precision):
    exact, fast = encoders_for(MEMENTO), encoders_for(MEMENTO, precision=precision)
    assert {fact.precision for fact in fast.facts} == {precision}
    for one, other in zip((*exact.frames, exact.clips), (*fast.frames, fast.clips), strict=True):
        given = pictures(8)[None] if one.kind == "viclip" else pictures(2)
        a, b = one.encode(given), other.encode(given)
        assert b.dtype == np.float32
        cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        assert (cosines > 0.995).all()
        assert not np.array_equal(a, b)
    assert np.abs(exact.clips.encode_texts(["x"]) - fast.clips.encode_texts(["x"])).max() < 0.1


def test_made_up_weights_are_marked(small):
    made = encoders_for(MEMENTO, random=True)
    assert made.missing == {}
    assert all(fact.random for fact in made.facts)
    assert set(made.weights.values()) == {"random"}
    features = by_kind(made)["clip_b32"].encode(pictures(2))
    small_encoders.forget()
    again = by_kind(encoders_for(MEMENTO, random=True))["clip_b32"].encode(pictures(2))
    assert np.array_equal(features, again)
    assert not np.array_equal(features[0], features[1])


def damage(path):
    path.write_bytes(path.read_bytes()[:-1000])


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("spoil", [damage, empty])
@pytest.mark.parametrize("name", ["clip-b32", "dinov2-b14"])
def test_damaged_files_are_listed_with_the_reason(full, name, spoil):
    (path,) = full.glob(f"{name}.*")
    spoil(path)
    made = encoders_for(MEMENTO)
    line = made.missing[name]
    assert set(made.missing) == {name}
    assert str(path) in line
    assert "fetch it again" in line
    assert "\n" not in line


def test_a_file_of_another_model_is_listed_with_the_reason(full):
    write(dinov2_state(), full / "clip-b32.safetensors")
    assert "no CLIP" in encoders_for(MEMENTO).missing["clip-b32"]


class Evil:
    def __reduce__(self):
        return os.system, ("touch " + os.environ["EVIL"],)


def test_pickles_run_no_code(full, monkeypatch, tmp_path):
    monkeypatch.setenv("EVIL", str(tmp_path / "ran"))
    torch.save({"model": Evil()}, full / "dinov2-b14.pth")
    line = encoders_for(MEMENTO).missing["dinov2-b14"]
    assert "cannot be read as tensors only" in line
    assert not (tmp_path / "ran").exists()


def test_given_paths(full, tmp_path):
    path = write(clip_state(8), tmp_path / "mine.safetensors")
    made = encoders_for(MEMENTO, paths={"clip-b32": str(path)})
    usual = encoders_for(MEMENTO)
    assert by_kind(made)["clip_b32"].identity != by_kind(usual)["clip_b32"].identity
    assert any("mine.safetensors" in note for note in made.notes)
    absent = encoders_for(MEMENTO, paths={"clip-b32": str(tmp_path / "absent")})
    assert "no file at" in absent.missing["clip-b32"]
    with pytest.raises(ValueError, match="no encoder is called clip; there are viclip-b16"):
        encoders_for(MEMENTO, paths={"clip": str(path)})


def test_packages_that_are_not_installed(full, monkeypatch):
    monkeypatch.setattr(load, "available", lambda module: module != "timm")
    for random in (True, False):
        line = encoders_for(MEMENTO, random=random).missing["dinov2-b14"]
        assert line == f"dinov2-b14: timm not installed; get it with: {install_command('eval')}"


def test_libraries_that_are_broken(full, monkeypatch):
    from benchmark.encoders import tensors

    def broken(module, extra):
        raise RuntimeError("operator torchvision::nms does not exist\nand more")

    monkeypatch.setattr(tensors, "require", broken)
    made = encoders_for(MEMENTO)
    assert made.clips is not None
    assert "clip-b32: open_clip.transformer cannot be imported" in made.missing["clip-b32"]
    assert "torchvision::nms does not exist);" in made.missing["clip-b32"]


@pytest.mark.parametrize("device", ["cuda:7", "nonsense", "cpu:x"])
def test_devices_that_are_not_here(small, device):
    if device.startswith("cuda") and torch.cuda.device_count() > 7:
        pytest.skip("there are eight GPUs")
    with pytest.raises(ValueError, match=f"device '{device}' cannot be used here"):
        encoders_for(MEMENTO, device=device)


def test_the_device_is_named(full):
    assert {fact.device for fact in encoders_for(MEMENTO, device="cpu").facts} == {"cpu"}
    assert chosen_device("auto") == ("cuda:0" if torch.cuda.is_available() else "cpu")


def test_unknown_precisions_are_refused(small):
    with pytest.raises(ValueError, match="'int8' is no precision: use fp32, bf16, fp16"):
        encoders_for(MEMENTO, precision="int8")


@pytest.mark.parametrize(
    "wrong", [pictures(2).astype(np.float32), pictures(2)[0], pictures(2).transpose(0, 3, 1, 2)]
)
def test_what_is_no_picture_is_refused(full, wrong):
    encoder = encoders_for(MEMENTO).frames[0]
    with pytest.raises(ValueError, match=r"pictures must be uint8 \[t, h, w, 3\]"):
        encoder.encode(wrong)
    with pytest.raises(ValueError, match=r"pictures must be uint8 \[n, 8, h, w, 3\]"):
        encoders_for(MEMENTO).clips.encode(wrong)


LIGHT = """
import sys
from benchmark.encoders.load import encoders_for
from benchmark.presets import PRESETS
made = encoders_for(PRESETS["memento"], device="cpu")
assert made.clips.tokenize("a red fox") == [320, 736, 3240]
assert len(made.names) == 6, made.missing
print([name for name in ("torch", "open_clip", "timm", "transformers") if name in sys.modules])
"""


def test_a_run_that_encodes_nothing_needs_no_torch(full):
    """Its import takes longer than scoring what is on disk."""
    encoders_for(MEMENTO)  # files are seen for the first time here
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_facts_tell_the_heads_sources(full):
    heads = [fact for fact in encoders_for(MEMENTO).facts if fact.name.startswith("aes")]
    assert all(isinstance(fact, EncoderFact) and len(fact.sha256) == 64 for fact in heads)


def test_float_products_are_exact_and_settings_come_back():
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    from benchmark.encoders.running import exact

    torch.set_float32_matmul_precision("high")
    try:
        with exact():
            assert torch.get_float32_matmul_precision() == "highest"
            assert not torch.backends.cudnn.allow_tf32
            assert torch.is_inference_mode_enabled()
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before[0])
    assert torch.backends.cudnn.allow_tf32 == before[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["memento", "storymem"])
def test_made_up_encoders_of_real_size(name):
    made = encoders_for(PRESETS[name], random=True, device="cpu")
    for encoder in made.frames:
        assert encoder.encode(pictures(1)).shape == (1, load.KINDS[_name(encoder.kind)].width)
    assert made.clips.encode(pictures(8)[None]).shape == (1, load.KINDS[PRESETS[name].viclip].width)


def _name(kind):
    return next(name for name, one in load.KINDS.items() if one.kind == kind)
