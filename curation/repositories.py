"""Whole model repositories: one table, and how a name or a path becomes a complete folder on this machine.

A single checked file is `curation.weights`; a language model is a folder of shards, settings and a tokenizer.
It is looked for at an explicit path, below `MEMENTO_WEIGHTS`, and in the Hugging Face hub cache; it is
downloaded only by `pull`, that is when a person asked for it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from curation import weights
from curation.optional import own_command
from curation.weights import WeightsMissing

FILES = ("*.json", "*.jinja", "*.safetensors", "merges.txt", "LICENSE*")
"""What `pull` takes of a repository; code is never among it."""

SAMPLED_BYTES = 1 << 16
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Repository:
    """A model on the Hugging Face hub.

    Attributes:
        repository: owner/name.
        revision: commit.
        licence: as its source states it.
        what: one line for a person.
        size_gb: of the weights.
        also: other names by which a user may ask for it.
        reads_text: whether it needs a tokenizer and settings beside its weights.
    """

    repository: str
    revision: str
    licence: str
    what: str
    size_gb: float
    also: tuple[str, ...] = ()
    reads_text: bool = True


def _qwen3_vl(size: str, revision: str, size_gb: float, what: str) -> Repository:
    name = f"Qwen3-VL-{size}-Instruct"
    return Repository(
        f"Qwen/{name}", revision, "Apache-2.0", f"captions, {what}", size_gb, (size.lower(), name.lower())
    )


TABLE: dict[str, Repository] = {
    "qwen3_vl_2b": _qwen3_vl("2B", "89644892e4d85e24eaac8bacfd4f463576704203", 4.3, "2 billion parameters"),
    "qwen3_vl_4b": _qwen3_vl("4B", "ebb281ec70b05090aa6165b016eac8ec08e71b17", 8.9, "4 billion parameters"),
    "qwen3_vl_8b": _qwen3_vl(
        "8B", "0c351dd01ed87e9c1b53cbc748cba10e6187ff3b", 17.5, "8 billion, the default"
    ),
    "qwen3_vl_32b": _qwen3_vl(
        "32B", "0cfaf48183f594c314753d30a4c4974bc75f3ccb", 66.7, "32 billion parameters"
    ),
    "qwen3_vl_30b_a3b": _qwen3_vl(
        "30B-A3B", "9c4b90e1e4ba969fd3b5378b57d966d725f1b86c", 62.1, "30 billion, 3 active per token"
    ),
    "clip-l14": Repository(
        "openai/clip-vit-large-patch14",
        "32bd64288804d66eefd0ccbe215aa642df71cc41",
        "MIT",
        "pictures, for aesthetic scores",
        1.7,
        reads_text=False,
    ),
}


def name_of(model: str) -> str | None:
    """The table's name for what a user wrote (`8B`, `Qwen/Qwen3-VL-8B-Instruct`, `qwen3_vl_8b`), or None."""
    asked = model.lower()
    for name, made in TABLE.items():
        if asked in (name, made.repository.lower(), *made.also):
            return name
    return None


def shown_name(model: str) -> str:
    """What is published as the model's name: its repository, or the last part of a folder's path."""
    known = name_of(model)
    if known:
        return TABLE[known].repository
    return Path(model).expanduser().name if _is_path(model) else model


def hub_caches() -> list[Path]:
    """Folders in the hub's own layout, best first: below `MEMENTO_WEIGHTS`, then the user's hub cache."""
    hub = os.environ.get("HF_HUB_CACHE") or os.path.join(
        os.environ.get("HF_HOME", "~/.cache/huggingface"), "hub"
    )
    return [weights.folder() / "hub", Path(hub).expanduser()]


def candidates(model: str, revision: str = "") -> Iterator[Path]:
    """The folders where a model may lie, best first.

    Args:
        model: a name of the table or `owner/name` of any repository.
        revision: commit, tag or branch; empty for the table's commit or else whatever the caches call `main`.
    """
    known = name_of(model)
    repository = TABLE[known].repository if known else model
    if not revision:  # a folder by hand has no revision to look for
        for plain in filter(None, (known, repository.rpartition("/")[2])):
            yield weights.folder() / plain
    wanted = [revision] if revision else [*([TABLE[known].revision] if known else []), "main"]
    for cache in hub_caches():
        folder = cache / ("models--" + repository.replace("/", "--"))
        for name in wanted:
            ref = folder / "refs" / name
            yield folder / "snapshots" / (ref.read_text().strip() if ref.is_file() else name)


def incomplete(folder: Path, *, reads_text: bool = True) -> str:
    """Why `folder` is no loadable model, in a few words; empty if it is one.

    Args:
        folder: with the files.
        reads_text: its settings and tokenizer must be there too; otherwise only the weights.
    """
    if reads_text and not (folder / "config.json").is_file():
        return "no config.json"
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            shards = set(json.loads(index.read_text())["weight_map"].values())
        except (ValueError, KeyError, AttributeError):
            return f"{index.name} is damaged"
    else:
        shards = {"model.safetensors"}
    missing = sorted(s for s in shards if not (folder / s).is_file())
    if missing:
        return f"{len(missing)} of {len(shards)} weight files missing, first {missing[0]}"
    if reads_text and not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        return "no tokenizer.json"
    return ""


def find(model: str, revision: str = "", *, reads_text: bool = True) -> Path | None:
    """The complete folder of a model that is already here, or None.

    Args:
        model: a folder, a name of the table or `owner/name`.
        revision: see `candidates`; has no meaning for a folder.
        reads_text: see `incomplete`; the table knows it of its own models.
    """
    reads_text = _reads_text(model, reads_text)
    if _is_path(model):
        folder = Path(model).expanduser()
        return None if incomplete(folder, reads_text=reads_text) else folder.resolve()
    places = candidates(model, revision)
    return next((place for place in places if not incomplete(place, reads_text=reads_text)), None)


def resolve(model: str, revision: str = "", *, allow_download: bool = False, reads_text: bool = True) -> Path:
    """The complete folder of a model: explicit path, then caches, then (only if allowed) a download.

    Args:
        model: a folder, a name of the table or `owner/name`.
        revision: see `candidates`; has no meaning for a folder.
        allow_download: fetch what is not here.
        reads_text: see `incomplete`; the table knows it of its own models.

    Raises:
        WeightsMissing: not here or not whole, and no download was allowed or it failed.
    """
    found = find(model, revision, reads_text=reads_text)
    if found is not None:
        return found
    reads_text = _reads_text(model, reads_text)
    names = ", ".join(name for name, made in TABLE.items() if made.reads_text == reads_text)
    if _is_path(model):
        folder = Path(model).expanduser()
        why = incomplete(folder, reads_text=reads_text) if folder.is_dir() else "no such folder"
        raise WeightsMissing(
            f"{folder}: not a model folder ({why}); correct the path or give a name: {names}"
        )
    if allow_download:
        return pull(model, revision)
    known = name_of(model)
    if known is None and not _is_repository(model):
        raise WeightsMissing(f"no model is called {model!r}; give a folder or one of: {names}")
    tried = [place for place in candidates(model, revision) if place.is_dir()]
    state = "; ".join(f"{place}: {incomplete(place, reads_text=reads_text)}" for place in tried) or ", ".join(
        dict.fromkeys(str(place.parent) for place in candidates(model, revision))
    )
    pin = f"@{revision}" if revision else ""
    raise WeightsMissing(
        f"{model} is not on this machine (looked for: {state}); get it with: "
        f"{own_command('weights pull')} {known or model}{pin}"
    )


def pull(model: str, revision: str = "") -> Path:
    """Download a repository into the hub cache and return its folder.

    The cache is below `MEMENTO_WEIGHTS` where that is set. An interrupted download goes on where it stopped.

    Raises:
        WeightsMissing: the download failed, or what came is not a whole model.
        MissingExtra: huggingface_hub is not installed.
    """
    from curation.optional import require

    known = name_of(model)
    if known is None and not _is_repository(model):
        raise WeightsMissing(f"no model is called {model!r}; give one of: {', '.join(TABLE)}")
    repository = TABLE[known].repository if known else model
    revision = revision or (TABLE[known].revision if known else "main")
    hub = require("huggingface_hub", extra="caption")
    cache = hub_caches()[0 if os.environ.get(weights.FOLDER_VARIABLE) else 1]
    try:
        folder = hub.snapshot_download(
            repository, revision=revision, cache_dir=str(cache), allow_patterns=list(FILES)
        )
    except (
        OSError,
        ValueError,
        RuntimeError,
    ) as error:  # what the hub's and the HTTP library's errors derive from
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise WeightsMissing(
            f"{model}: cannot download {repository} at {revision} ({first}); fetch it by hand "
            f"(hf download {repository} --revision {revision}) or copy its folder to "
            f"{weights.folder() / (known or repository.rpartition('/')[2])}"
        ) from error
    if why := incomplete(Path(folder), reads_text=_reads_text(model)):
        raise WeightsMissing(f"{model}: {folder} is not a whole model after the download ({why})")
    return Path(folder)


def revision_of(folder: Path) -> str:
    """The commit of a hub snapshot, else a hash of what the folder holds.

    The hash covers the settings, templates and tokenizer files whole and of each weight file its name, its
    size and its first and last 64 KiB (names, shapes and places of all tensors are in the first): cheap on a
    model of any size, and another for a fine-tuned model of the same shape.
    """
    if folder.parent.name == "snapshots" and COMMIT.fullmatch(folder.name):
        return folder.name
    hashed = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix in (".json", ".jinja") or file.name == "merges.txt":
            content = file.read_bytes()
        elif file.suffix == ".safetensors":
            content = _sample(file)
        else:
            continue
        hashed.update(f"{file.name} {file.stat().st_size} ".encode())
        hashed.update(hashlib.sha256(content).digest())
    return "sha256-" + hashed.hexdigest()[:40]


def _sample(file: Path) -> bytes:
    with file.open("rb") as opened:
        first = opened.read(SAMPLED_BYTES)
        opened.seek(max(0, file.stat().st_size - SAMPLED_BYTES))
        return first + opened.read(SAMPLED_BYTES)


def _is_path(model: str) -> bool:
    """Whether a user means a folder: it is there, or is written as a path."""
    if name_of(model):
        return False
    return model.startswith(("/", "./", "../", "~")) or model.count("/") > 1 or Path(model).is_dir()


def _is_repository(model: str) -> bool:
    return re.fullmatch(r"[\w.-]+/[\w.-]+", model) is not None


def _reads_text(model: str, otherwise: bool = True) -> bool:
    known = name_of(model)
    return TABLE[known].reads_text if known else otherwise
