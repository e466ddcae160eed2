import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from curation import repositories, weights
from curation.repositories import TABLE, find, incomplete, name_of, pull, resolve, revision_of
from curation.weights import WeightsMissing


@pytest.fixture
def caches(monkeypatch, tmp_path):
    """Empty places to look at; no real cache of this machine is seen."""
    monkeypatch.setenv(weights.FOLDER_VARIABLE, str(tmp_path / "ours"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def model(folder, shards=1):
    """The files of a model, with nothing in them."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    if shards == 1:
        (folder / "model.safetensors").write_bytes(b"weights" * 40000)
    else:
        names = [f"model-{i}-of-{shards}.safetensors" for i in range(shards)]
        index = {"weight_map": {f"layer.{i}": name for i, name in enumerate(names)}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        for name in names:
            (folder / name).write_bytes(name.encode() * 10)
    return folder


def snapshot(cache, repository, commit, **more):
    return model(cache / f"models--{repository.replace('/', '--')}" / "snapshots" / commit, **more)


@pytest.mark.parametrize(
    "asked", ["8B", "8b", "qwen3_vl_8b", "Qwen3-VL-8B-Instruct", "Qwen/Qwen3-VL-8B-Instruct"]
)
def test_short_names(asked):
    assert name_of(asked) == "qwen3_vl_8b"


def test_names_are_unambiguous():
    said = [word for made in TABLE.values() for word in (made.repository.lower(), *made.also)]
    assert len(set(said)) == len(said)
    assert name_of("30B-A3B") == "qwen3_vl_30b_a3b"
    assert name_of("70B") is None


@pytest.mark.parametrize("name", TABLE)
def test_table_entries_are_complete(name):
    made = TABLE[name]
    assert repositories.COMMIT.fullmatch(made.revision)
    assert made.licence == ("Apache-2.0" if made.reads_text else "MIT")
    assert made.size_gb > 1


def test_missing_says_what_where_and_how(caches):
    assert find("8B") is None
    with pytest.raises(WeightsMissing) as missing:
        resolve("8B")
    said = str(missing.value)
    assert said.endswith("get it with: memento weights pull qwen3_vl_8b")
    assert str(caches / "ours") in said
    assert str(caches / "hub") in said
    assert "\n" not in said
    with pytest.raises(WeightsMissing, match=r"pull someone/else@v2$"):
        resolve("someone/else", "v2")
    with pytest.raises(
        WeightsMissing, match="no model is called '70B'; give a folder or one of: qwen3_vl_2b"
    ):
        resolve("70B")


def test_found_in_the_hub_cache_and_ours_comes_first(caches):
    commit = TABLE["qwen3_vl_8b"].revision
    hub = snapshot(caches / "hub", TABLE["qwen3_vl_8b"].repository, commit)
    assert resolve("8B") == hub
    assert revision_of(hub) == commit
    ours = snapshot(caches / "ours" / "hub", TABLE["qwen3_vl_8b"].repository, commit)
    assert find("Qwen/Qwen3-VL-8B-Instruct") == ours
    by_hand = model(caches / "ours" / "Qwen3-VL-8B-Instruct")
    assert find("8B") == by_hand
    assert find("8B", commit) == ours  # a folder by hand cannot promise a commit


def test_another_commit_in_the_cache_serves_unless_one_is_asked_for(caches):
    repository, commit = TABLE["qwen3_vl_2b"].repository, "f" * 40
    newer = snapshot(caches / "hub", repository, commit)
    assert find("2B") is None
    refs = newer.parent.parent / "refs"
    refs.mkdir()
    (refs / "main").write_text(commit)
    assert find("2B") == newer
    assert find("2B", "main") == find("2B", commit) == newer
    assert find("2B", TABLE["qwen3_vl_2b"].revision) is None


def test_a_half_downloaded_model_is_not_there(caches):
    folder = snapshot(
        caches / "hub", TABLE["qwen3_vl_4b"].repository, TABLE["qwen3_vl_4b"].revision, shards=3
    )
    assert find("4B") == folder
    (folder / "model-1-of-3.safetensors").unlink()
    assert incomplete(folder) == "1 of 3 weight files missing, first model-1-of-3.safetensors"
    with pytest.raises(WeightsMissing, match=r"1 of 3 weight files missing.*pull qwen3_vl_4b"):
        resolve("4B")
    (folder / "model.safetensors.index.json").write_text("{")
    assert "damaged" in incomplete(folder)


def test_folders(caches, tmp_path):
    mine = model(tmp_path / "mine")
    assert resolve(str(mine)) == mine
    with pytest.raises(WeightsMissing, match="no such folder"):
        resolve(str(tmp_path / "absent"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsMissing, match=r"no config.json.*correct the path"):
        resolve(str(tmp_path / "empty"))


def test_revision_of_a_folder_follows_its_content(tmp_path):
    one, two = model(tmp_path / "one"), model(tmp_path / "two")
    assert revision_of(one) == revision_of(two)
    assert revision_of(one).startswith("sha256-")
    (two / "README.md").write_text("words")
    assert revision_of(one) == revision_of(two)
    tuned = bytearray((two / "model.safetensors").read_bytes())
    tuned[-1] ^= 1
    (two / "model.safetensors").write_bytes(tuned)
    assert revision_of(one) != revision_of(two)
    (two / "model.safetensors").write_bytes((one / "model.safetensors").read_bytes())
    (two / "chat_template.jinja").write_text("{{ messages }}")
    assert revision_of(one) != revision_of(two)


@pytest.fixture
def hub(monkeypatch):
    """A hub whose download is scripted; `calls` is what was asked of it."""
    calls = []

    def snapshot_download(repository, *, revision, cache_dir, allow_patterns):
        calls.append((repository, revision, cache_dir))
        if hub.error:
            raise hub.error
        return str(snapshot(Path(cache_dir), repository, revision, **hub.shape))

    hub = SimpleNamespace(snapshot_download=snapshot_download, calls=calls, error=None, shape={})
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    return hub


def test_pulled_only_when_asked_and_found_afterwards(caches, hub):
    with pytest.raises(WeightsMissing):
        resolve("8B")
    assert hub.calls == []
    folder = resolve("8B", allow_download=True)
    made = TABLE["qwen3_vl_8b"]
    assert hub.calls == [(made.repository, made.revision, str(caches / "ours" / "hub"))]
    assert resolve("8B") == folder
    assert len(hub.calls) == 1


def test_pulled_into_the_users_hub_cache_by_default(caches, hub, monkeypatch):
    monkeypatch.delenv(weights.FOLDER_VARIABLE)
    pull("someone/else")
    assert hub.calls == [("someone/else", "main", str(caches / "hub"))]


def test_failed_download_says_how_to_do_it_by_hand(caches, hub):
    hub.error = OSError("no route to host\nand a long story")
    with pytest.raises(
        WeightsMissing, match=r"no route to host\); fetch it by hand \(hf download Qwen/"
    ) as failed:
        pull("8B")
    assert "\n" not in str(failed.value)
    with pytest.raises(WeightsMissing, match="no model is called '70B'"):
        pull("70B")


def test_the_command_knows_both_tables(caches, hub, capsys):
    from curation.config import SettingsError
    from pipelines import weights_command

    weights_command.pull(["someone/else@v2"])
    assert hub.calls[-1][:2] == ("someone/else", "v2")
    with pytest.raises(SettingsError, match="did you mean 'qwen3_vl_8b'"):
        weights_command.pull(["qwen3_vl_9b"])
    weights_command.show()
    shown = capsys.readouterr().out
    assert "qwen3_vl_32b" in shown
    assert "yolox_nano" in shown
