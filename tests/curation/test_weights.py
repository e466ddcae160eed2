import hashlib
from pathlib import Path

import pytest

from curation import weights
from curation.weights import TABLE, Weights, WeightsDamaged, WeightsMissing, find, pull, resolve
from tests.support import SHARED


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A table of one small file, and an empty cache folder."""
    content = b"not really weights"
    source = tmp_path / "source" / "file.onnx"
    source.parent.mkdir()
    source.write_bytes(content)
    made = Weights(
        hub="github",
        repository="someone/something",
        revision="abc",
        file="models/file.onnx",
        sha256=hashlib.sha256(content).hexdigest(),
        licence="MIT",
        what="a test",
    )
    monkeypatch.setattr(weights, "TABLE", {"small": made})
    monkeypatch.setenv(weights.FOLDER_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(Weights, "url", property(lambda self: source.as_uri()))
    return source


def test_missing_says_what_where_and_how(small, tmp_path):
    assert find("small") is None
    with pytest.raises(WeightsMissing) as error:
        resolve("small")
    text = str(error.value)
    assert "a test" in text
    assert str(tmp_path / "cache" / "small.onnx") in text
    assert "memento weights pull small" in text
    assert "\n" not in text


def test_download_only_when_asked_and_found_afterwards(small, tmp_path):
    path = resolve("small", allow_download=True)
    assert path == tmp_path / "cache" / "small.onnx"
    assert path.read_bytes() == small.read_bytes()
    small.unlink()  # from now on a download would fail
    assert resolve("small") == path == pull("small")
    assert [p.name for p in path.parent.iterdir()] == ["small.onnx"]


def test_file_under_its_own_name_in_the_folder_is_found(small, tmp_path):
    cached = tmp_path / "cache" / "file.onnx"
    cached.parent.mkdir()
    cached.write_bytes(small.read_bytes())
    assert find("small") == cached


def test_damaged_cache_and_damaged_download(small, tmp_path):
    small.write_bytes(b"something else")
    with pytest.raises(WeightsDamaged, match="another file"):
        pull("small")
    assert not list((tmp_path / "cache").iterdir())
    (tmp_path / "cache" / "small.onnx").write_bytes(b"broken")
    with pytest.raises(WeightsDamaged, match="remove it"):
        find("small")


def test_explicit_path_wins(small, tmp_path):
    assert find("small", str(small)) == small
    with pytest.raises(WeightsMissing, match="no file at"):
        find("small", str(tmp_path / "absent.onnx"))


def test_failed_download_says_how_to_do_it_by_hand(small, tmp_path):
    small.unlink()
    with pytest.raises(WeightsMissing, match="by hand and put it at"):
        pull("small")


def test_unknown_name_lists_the_known(small):
    with pytest.raises(KeyError, match="there are: small"):
        find("large")


def test_hugging_face_cache_is_looked_at(monkeypatch, tmp_path):
    content = b"hub"
    made = Weights("huggingface", "a/b", "rev", "x/y.bin", hashlib.sha256(content).hexdigest(), "MIT", "")
    monkeypatch.setattr(weights, "TABLE", {"hub": made})
    monkeypatch.setenv(weights.FOLDER_VARIABLE, str(tmp_path / "none"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    file = tmp_path / "hub" / "models--a--b" / "snapshots" / "rev" / "x" / "y.bin"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    assert find("hub") == file
    assert made.url == "https://huggingface.co/a/b/resolve/rev/x/y.bin"


@pytest.mark.parametrize("name", TABLE)
def test_table_entries_are_complete(name):
    made = TABLE[name]
    assert len(made.sha256) == 64
    assert len(made.revision) == 40
    assert made.licence
    assert made.what
    assert made.url.startswith("https://")


def test_table_matches_the_real_files():
    folder = SHARED / "data" / "weights"
    if not folder.exists():
        pytest.skip("real weights not present")
    have = {hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.glob("*.onnx")}
    assert {made.sha256 for made in TABLE.values()} <= have


def test_hash_follows_the_file(tmp_path: Path):
    file = tmp_path / "a"
    file.write_bytes(b"1")
    first = weights.sha256_of(file)
    file.write_bytes(b"22")
    assert weights.sha256_of(file) != first == hashlib.sha256(b"1").hexdigest()
