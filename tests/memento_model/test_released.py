"""Published weights: found where they lie, refused if something lacks, fetched only on request."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from curation.weights import WeightsMissing
from memento_model.checkpoints import released


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    monkeypatch.setenv("MEMENTO_WEIGHTS", str(tmp_path / "ours"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def filled(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


MEMENTO = ("backbone_high_noise.safetensors", "backbone_low_noise.safetensors")


def test_found_by_hand_and_in_the_hubs_cache(caches):
    assert released.find("memento") is None
    cache = caches / "hub/models--ernie-research--Memento"
    snapshot = filled(cache / "snapshots/abc", *MEMENTO)
    (cache / "refs").mkdir()
    (cache / "refs/main").write_text("abc\n")
    assert released.find("memento") == snapshot
    by_hand = filled(caches / "ours/Memento", *MEMENTO)
    assert released.find("memento") == by_hand


def test_the_folder_inside_a_repository_is_what_is_used(caches, monkeypatch):
    """StoryMem's repository holds two models; one of them is ours to use."""
    assert released.find("storymem") is None
    inside = filled(caches / "ours/StoryMem/Wan2.2-MI2V-A14B", *MEMENTO)
    filled(caches / "ours/StoryMem/Wan2.2-MM2V-A14B", *MEMENTO)
    assert released.find("storymem") == inside
    alone = filled(caches / "ours/storymem", *MEMENTO)
    assert released.find("storymem") == alone

    def download(repository, *, cache_dir, allow_patterns):
        assert repository == "Kevin-thu/StoryMem"
        return str(filled(caches / "came", *(f"Wan2.2-MI2V-A14B/{name}" for name in MEMENTO)))

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=download))
    assert released.pull("storymem") == caches / "came/Wan2.2-MI2V-A14B"


def test_half_a_download_is_none(caches):
    folder = filled(caches / "ours/memento", MEMENTO[0])
    assert released.missing("memento", folder) == [MEMENTO[1]]
    assert released.find("memento") is None
    with pytest.raises(WeightsMissing, match="memento weights pull memento") as caught:
        released.resolve("memento")
    assert len(str(caught.value).splitlines()) == 1


def test_of_alternatives_one_is_enough(caches):
    native = filled(
        caches / "ours/wan22_i2v_a14b", "high_noise_model/a", "low_noise_model/a", "Wan2.1_VAE.safetensors"
    )
    assert released.missing("wan22_i2v_a14b", native) == [
        "models_t5_umt5-xxl-enc-bf16.pth or models_t5_umt5-xxl-enc-bf16.safetensors"
    ]
    filled(native, "models_t5_umt5-xxl-enc-bf16.pth")
    assert released.resolve("wan22_i2v_a14b") == native


def test_pull_takes_no_code_and_checks_what_came(caches, monkeypatch):
    asked = {}

    def download(repository, *, cache_dir, allow_patterns):
        asked.update(repository=repository, cache=cache_dir, patterns=allow_patterns)
        return str(filled(caches / "came", *asked.get("files", MEMENTO)))

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=download))
    assert released.pull("memento") == caches / "came"
    assert asked["repository"] == "ernie-research/Memento"
    assert asked["cache"] == str(caches / "ours/hub")
    assert not any(pattern.endswith((".py", "*")) and pattern != "LICENSE*" for pattern in asked["patterns"])
    (caches / "came" / MEMENTO[1]).unlink()
    asked["files"] = (MEMENTO[0],)
    with pytest.raises(WeightsMissing, match=f"lacks {MEMENTO[1]} after the download"):
        released.pull("memento")


def test_a_failed_download_says_what_to_do_by_hand(monkeypatch):
    def download(*_, **__):
        raise OSError("no network\nmore")

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=download))
    with pytest.raises(
        WeightsMissing, match=r"cannot download openai/clip.*no network.*hf download"
    ) as caught:
        released.pull("clip_vit_b32")
    assert "\n" not in str(caught.value)
