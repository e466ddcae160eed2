"""Weights of the encoders: where the published files lie on this machine, and how to fetch them.

Nothing is downloaded but by `pull`, that is when a person asked for it (`memento weights pull NAME`). The
SHA-256 of a file is always computed, and recorded with every score. It is checked where the true one is
known: where it is part of the file's address, where several public projects state the same, or where the
hub's cache names it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmark.encoders.base import EncodersMissing
from benchmark.encoders.memo import FileFacts
from curation import repositories, weights
from curation.optional import require
from curation.weights import WeightsDamaged, WeightsMissing

HEX_DIGITS = 64
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


@dataclass(frozen=True, kw_only=True)
class Published:
    """One file that holds the weights.

    Attributes:
        file: its name, in the repository and in a folder.
        repository: owner/name on the Hugging Face hub; empty if it is not there.
        revision: commit; empty if it is not known.
        sha256: empty if it is not known.
        caches: folders in which other programs keep the file.
    """

    file: str
    repository: str = ""
    revision: str = ""
    sha256: str = ""
    caches: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """Weights of an encoder, in any of several files.

    Attributes:
        what: one line for a person.
        licence: as its sources state it.
        size_gb: of the download, about.
        files: best first; the first one is what `pull` fetches.
    """

    what: str
    licence: str
    size_gb: float
    files: tuple[Published, ...]


def _clip(
    repository: str, revision: str, first: Published, openai: Published, timm: str
) -> tuple[Published, ...]:
    others = ("model.safetensors", "pytorch_model.bin")
    return (
        first,
        *(
            Published(file=file, repository=repository, revision=revision)
            for file in others
            if file != first.file
        ),
        openai,
        Published(file="open_clip_model.safetensors", repository=timm),
        Published(file="open_clip_pytorch_model.bin", repository=timm),
    )


_B32, _B32_COMMIT = "openai/clip-vit-base-patch32", "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268"
_L14, _L14_COMMIT = "openai/clip-vit-large-patch14", "32bd64288804d66eefd0ccbe215aa642df71cc41"
_DINO, _DINO_COMMIT = "facebook/dinov2-base", "f9e44c814b77203eaa57a6bdbbd535f21ede1415"
_VICLIP_LICENCE = "CC-BY-NC-SA-4.0 or MIT (sources differ)"

TABLE: dict[str, Encoder] = {
    "viclip-b16": Encoder(
        what="clips and texts: ViCLIP-B/16",
        licence=_VICLIP_LICENCE,
        size_gb=0.6,
        files=(
            Published(
                file="model.safetensors",
                repository="OpenGVLab/ViCLIP-B-16-hf",
                revision="8484a9cb5b1b86e43c3ded53abe7485f52d8b789",
            ),
        ),
    ),
    "viclip-l14": Encoder(
        what="clips and texts: ViCLIP-L/14",
        licence=_VICLIP_LICENCE,
        size_gb=1.7,
        files=(
            Published(
                file="model.safetensors",
                repository="OpenGVLab/ViCLIP-L-14-hf",
                revision="1652361522e1cb41c28cdfae870f690d00e7456b",
            ),
            Published(
                file="ViClip-InternVid-10M-FLT.pth",
                repository="OpenGVLab/ViCLIP",
                caches=("~/.cache/vbench/ViCLIP",),
            ),
        ),
    ),
    "clip-b32": Encoder(
        what="frames: CLIP ViT-B/32",
        licence="MIT",
        size_gb=0.6,
        files=_clip(
            _B32,
            _B32_COMMIT,
            Published(
                file="pytorch_model.bin",
                repository=_B32,
                revision=_B32_COMMIT,
                sha256="a63082132ba4f97a80bea76823f544493bffa8082296d62d71581a4feff1576f",
            ),
            Published(
                file="ViT-B-32.pt",
                sha256="40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
                caches=("~/.cache/clip", "~/.cache/vbench/clip_model"),
            ),
            "timm/vit_base_patch32_clip_224.openai",
        ),
    ),
    "clip-l14": Encoder(
        what="frames: CLIP ViT-L/14, for aesthetic scores (curation's too)",
        licence="MIT",
        size_gb=1.7,
        files=_clip(
            _L14,
            _L14_COMMIT,
            Published(
                file="model.safetensors",
                repository=_L14,
                revision=_L14_COMMIT,
                sha256="a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb",
            ),
            Published(
                file="ViT-L-14.pt",
                sha256="b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
                caches=("~/.cache/clip", "~/.cache/vbench/clip_model"),
            ),
            "timm/vit_large_patch14_clip_224.openai",
        ),
    ),
    "dinov2-b14": Encoder(
        what="frames: DINOv2 ViT-B/14",
        licence="Apache-2.0",
        size_gb=0.3,
        files=(
            Published(file="model.safetensors", repository=_DINO, revision=_DINO_COMMIT),
            Published(
                file="dinov2_vitb14_pretrain.pth",
                sha256="0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",
                caches=("$TORCH_HOME/hub/checkpoints", "~/.cache/torch/hub/checkpoints"),
            ),
            Published(file="pytorch_model.bin", repository=_DINO, revision=_DINO_COMMIT),
        ),
    ),
}
NO_PACKAGE = "not installed"
"""What the line for an encoder says whose packages are missing."""
REMOVE = "remove it and run:"
"""What the line for a damaged file ends with: before a download a person must do something."""
TORCHSCRIPT = frozenset(
    file.sha256
    for one in TABLE.values()
    for file in one.files
    if file.file.startswith("ViT-") and file.sha256
)
"""Of OpenAI's own archives, which are programs and not only tensors."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A file with weights on this machine.

    Attributes:
        path: of the file.
        sha256: of its content.
        note: what a reader must know of it; empty if its hash is that of a published file.
    """

    path: Path
    sha256: str
    note: str = ""


def command(*names: str) -> str:
    """What to type to get the weights of encoders."""
    return f"memento weights pull {' '.join(names)}"


def candidates(name: str) -> Iterator[tuple[Path, Published]]:
    """(place, file) where weights may lie, best first: our folder, then caches of other programs."""
    one = TABLE[name]
    for suffix in SUFFIXES:
        yield weights.folder() / f"{name}{suffix}", Published(file="")
    for file in one.files:
        parents = [weights.folder() / name, weights.folder() / file.repository.rpartition("/")[2]]
        for parent in [*parents, *_caches(file)]:
            yield parent / file.file, file
        if file.repository:
            for snapshot in _snapshots(file):
                yield snapshot / file.file, file


def find(name: str, path: str = "") -> Found:
    """The weights of an encoder, their hash checked as far as it is known.

    Args:
        name: in the table.
        path: a file, or a folder that holds one under a published name; then nothing else is looked at. A
            file with another hash than the published ones is the user's choice; the note says it.

    Raises:
        EncodersMissing: no such file here.
        WeightsDamaged: a file in a cache has another hash than it must have.
    """
    if path:
        return _explicit(name, Path(path).expanduser())
    for place, file in candidates(name):
        if place.is_file():
            return _checked(name, place, file)
    others = dict.fromkeys(str(folder) for file in TABLE[name].files for folder in _caches(file))
    places = [str(weights.folder()), "the Hugging Face hub's caches", *others]
    raise EncodersMissing(
        f"{name}: no weights on this machine (looked in {', '.join(places)}); get them with: {command(name)} "
        f"({TABLE[name].size_gb:g} GB, {TABLE[name].licence})"
    )


def here(name: str) -> Path | None:
    """Where the weights of an encoder lie, unchecked; None if they are not here."""
    return next((place for place, _ in candidates(name) if place.is_file()), None)


def pull(name: str) -> Path:
    """Download the weights of an encoder into the hub's cache, below `MEMENTO_WEIGHTS` where that is set.

    An interrupted download goes on where it stopped.

    Raises:
        WeightsMissing: the download failed.
        WeightsDamaged: what came is another file.
        MissingExtra: huggingface_hub is not installed.
    """
    file = TABLE[name].files[0]
    hub = require("huggingface_hub", extra="eval")
    cache = repositories.hub_caches()[0 if os.environ.get(weights.FOLDER_VARIABLE) else 1]
    try:
        place = hub.hf_hub_download(
            file.repository, file.file, revision=file.revision or None, cache_dir=str(cache)
        )
    except (OSError, ValueError, RuntimeError) as error:  # what the hub's and HTTP errors derive from
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise WeightsMissing(
            f"{name}: cannot download {file.file} of {file.repository} ({first}); fetch it by hand and "
            f"put it at {weights.folder() / (name + Path(file.file).suffix)}"
        ) from error
    return _checked(name, Path(place), file).path


def _caches(file: Published) -> list[Path]:
    """Folders of other programs; those that an unset variable names are left out."""
    expanded = [os.path.expandvars(folder) for folder in file.caches]
    return [Path(folder).expanduser() for folder in expanded if "$" not in folder]


def _snapshots(file: Published) -> Iterator[Path]:
    for cache in repositories.hub_caches():
        folder = cache / ("models--" + file.repository.replace("/", "--"))
        ref = folder / "refs" / "main"
        named = [file.revision, ref.read_text().strip() if ref.is_file() else ""]
        others = sorted(p.name for p in (folder / "snapshots").glob("*"))
        for revision in dict.fromkeys([*filter(None, named), *others]):
            yield folder / "snapshots" / revision


def _explicit(name: str, path: Path) -> Found:
    if path.is_dir():
        names = [file.file for file in TABLE[name].files] + [name + suffix for suffix in SUFFIXES]
        inside = [path / one for one in names if (path / one).is_file()]
        if not inside:
            raise EncodersMissing(f"{name}: {path} holds none of {', '.join(names)}; name the file itself")
        path = inside[0]
    if not path.is_file():
        raise EncodersMissing(f"{name}: no file at {path}; correct the path or leave it out")
    return _noted(name, path, _sha256(path))


def _checked(name: str, path: Path, file: Published) -> Found:
    found = _sha256(path)
    stored = path.resolve().name  # the hub's cache keeps large files under their SHA-256
    expected = file.sha256 or (stored if _is_sha256(stored) else "")
    if expected and found != expected:
        raise WeightsDamaged(
            f"{name}: {path} is damaged or another file (SHA-256 {found[:12]}..., expected "
            f"{expected[:12]}...); {REMOVE} {command(name)}"
        )
    return _noted(name, path, found)


def _noted(name: str, path: Path, sha256: str) -> Found:
    published = {file.sha256 for file in TABLE[name].files if file.sha256}
    if sha256 in published:
        return Found(path=path, sha256=sha256)
    why = (
        "is not that of a published file that we know"
        if published
        else "is recorded, there is none to compare"
    )
    return Found(path=path, sha256=sha256, note=f"{name}: {path.name}: the SHA-256 {sha256[:12]}... {why}")


def _is_sha256(text: str) -> bool:
    return len(text) == HEX_DIGITS and set(text) <= set("0123456789abcdef")


def _sha256(path: Path) -> str:
    facts = FileFacts()
    known = facts.get(path, "sha256")
    if not known:
        known = weights.sha256_of(path)
        facts.put(path, "sha256", known)
    return known
