"""Model weights: one table, and how a name in it becomes a checked file on this machine.

A file is looked for at an explicit path, then in the local caches; it is downloaded only by `pull`, that is
when a person asked for it. Its SHA-256 is checked wherever it came from.
"""

from __future__ import annotations

import functools
import hashlib
import os
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from curation.optional import own_command

FOLDER_VARIABLE = "MEMENTO_WEIGHTS"
PULL_TIMEOUT_S = 60.0


class WeightsMissing(LookupError):
    """A weight file is not on this machine; the message says what, where it was sought and how to get it."""


class WeightsDamaged(ValueError):
    """A weight file is there but is not the one of the table (other SHA-256)."""


@dataclass(frozen=True)
class Weights:
    """One file of a public repository.

    Attributes:
        hub: where the repository is: "github" or "huggingface".
        repository: owner/name.
        revision: commit.
        file: path in the repository.
        sha256: of the file.
        licence: as its source states it.
        what: one line for a person.
    """

    hub: str
    repository: str
    revision: str
    file: str
    sha256: str
    licence: str
    what: str

    @property
    def url(self) -> str:
        """Where `pull` takes it from."""
        file = urllib.parse.quote(self.file)
        if self.hub == "github":
            return f"https://raw.githubusercontent.com/{self.repository}/{self.revision}/{file}"
        return f"https://huggingface.co/{self.repository}/resolve/{self.revision}/{file}"


TABLE: dict[str, Weights] = {
    "yolox_nano": Weights(
        hub="github",
        repository="hamacom2004jp/iinfer",
        revision="c7f9a3c5216c6f8b3e8b35886f863dffa2dc0bf9",
        file="models/yolox_nano.onnx",
        sha256="d39bee73564e338080378b0ad567fbb40e818b55bbfaf971de82a0267ed16b8a",
        licence="Apache-2.0 (YOLOX); MIT (repository)",
        what="object detector, COCO's 80 classes, 416x416",
    ),
    "face_yunet": Weights(
        hub="github",
        repository="ShiqiYu/libfacedetection.train",
        revision="0047ac24afb1a50a0c6105001c89d1b5b805dbf1",
        file="onnx/yunet_n_dynamic.onnx",
        sha256="104ee26c71d5c270ce79a6b3dced91c91013260d29a6bf18f9296c5b8c4c2b12",
        licence="Apache-2.0",
        what="face detector with five landmarks, any picture size",
    ),
    "mobilefacenet": Weights(
        hub="github",
        repository="hyeonjunchoi/AutoTracking_RassibarryPi",
        revision="414044f3ccb702a47c1f270a748d425ba34e335a",
        file="mobilefacenet.onnx",
        sha256="0c9ad2a83969fc82155706f7020e6926b4a1a90a5476fff4a5588dfe207f64a4",
        licence="none stated",
        what="face identity, aligned 112x112 -> 128 numbers",
    ),
    "osnet_x0_25": Weights(
        hub="github",
        repository="akshaydhame2001/YOLOv8_Tracking_TensorRT",
        revision="cb948b3224a53986e8ccc0ca940fb8fe842e145b",
        file="osnet_x0_25_msmt17.onnx",
        sha256="61b2604171ef9d58d21758626f83b35a253c3d7123976523a6e03068c3c95d7b",
        licence="MIT (Torchreid); none stated (repository)",
        what="person re-identification, 256x128 -> 512 numbers",
    ),
    "ppocr_v3_det": Weights(
        hub="github",
        repository="Kahsolt/CCF-BDCI-2024-TPU-ocr-deploy",
        revision="37b7921072f3ddd9d55dab64f9a1ed6627236f18",
        file="models/ch_PP-OCRv3_det_infer.onnx",
        sha256="01c414b39144bf1d1238c5e8ee1e23d5c5b96b231cea0b71ceba16c05434e5cc",
        licence="Apache-2.0 (PaddleOCR); MIT (repository)",
        what="text detector, any script",
    ),
}


def entry(name: str) -> Weights:
    """The table's entry.

    Raises:
        KeyError: with the names there are.
    """
    try:
        return TABLE[name]
    except KeyError:
        raise KeyError(f"no weights named {name!r}; there are: {', '.join(TABLE)}") from None


def folder() -> Path:
    """Where `pull` puts files: $MEMENTO_WEIGHTS, or `memento` in the user's cache folder."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "memento"


def candidates(name: str) -> Iterator[Path]:
    """The places where the file may lie, best first: our folder, then the Hugging Face hub cache."""
    made = entry(name)
    yield folder() / local_name(name)
    yield folder() / Path(made.file).name
    if made.hub == "huggingface":
        hub = os.environ.get("HF_HUB_CACHE") or os.path.join(
            os.environ.get("HF_HOME", "~/.cache/huggingface"), "hub"
        )
        repository = "models--" + made.repository.replace("/", "--")
        yield Path(hub).expanduser() / repository / "snapshots" / made.revision / made.file


def local_name(name: str) -> str:
    """The file name under which `pull` keeps the weights `name`."""
    return name + Path(entry(name).file).suffix


def find(name: str, path: str | None = None) -> Path | None:
    """The checked local file of weights in the table, or None where there is none.

    Args:
        name: in the table.
        path: an explicit file; then nothing else is looked at, and any hash is accepted: it is the user's
            choice, and what ran is recorded by the hash of the file itself.

    Raises:
        WeightsMissing: `path` is given and no file.
        WeightsDamaged: a cached file has another hash than the table says.
    """
    made = entry(name)
    if path:
        explicit = Path(path).expanduser()
        if not explicit.is_file():
            raise WeightsMissing(f"{name}: no file at {explicit}; correct the path or leave it out")
        return explicit
    for place in candidates(name):
        if place.is_file():
            if sha256_of(place) != made.sha256:
                raise WeightsDamaged(
                    f"{name}: {place} is damaged or another file (SHA-256 {sha256_of(place)[:12]}..., "
                    f"expected {made.sha256[:12]}...); remove it and run: "
                    f"{own_command('weights pull')} {name}"
                )
            return place
    return None


def resolve(name: str, path: str | None = None, *, allow_download: bool = False) -> Path:
    """The checked local file: explicit path, then caches, then (only if allowed) a download.

    Raises:
        WeightsMissing: not here, and no download was allowed or it failed.
        WeightsDamaged: the file has another hash than the table says.
    """
    found = find(name, path)
    if found is not None:
        return found
    if allow_download:
        return pull(name)
    places = ", ".join(str(p) for p in candidates(name))
    raise WeightsMissing(
        f"{name} ({entry(name).what}) is not on this machine (looked for {places}); get it with: "
        f"{own_command('weights pull')} {name}"
    )


def pull(name: str) -> Path:
    """Download the weights into `folder()`, unless they are there, and check them.

    Raises:
        WeightsMissing: the download failed.
        WeightsDamaged: the download is not the file of the table; nothing is kept.
    """
    made = entry(name)
    target = folder() / local_name(name)
    if target.is_file() and sha256_of(target) == made.sha256:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    try:
        _download(made.url, part)
        found = sha256_of(part)
        if found != made.sha256:
            raise WeightsDamaged(
                f"{name}: {made.url} now holds another file (SHA-256 {found[:12]}..., expected "
                f"{made.sha256[:12]}...); nothing was kept"
            )
        os.replace(part, target)
    except (OSError, urllib.error.URLError) as error:
        raise WeightsMissing(
            f"{name}: cannot download {made.url} ({error}); fetch it by hand and put it at {target}"
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return target


def _download(url: str, target: Path) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": "memento-video"})
    with (
        urllib.request.urlopen(request, timeout=PULL_TIMEOUT_S) as source,
        target.open("wb") as out,
    ):
        while block := source.read(1 << 20):
            out.write(block)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file; remembered while its size and modification time stay the same."""
    facts = path.stat()
    return _sha256(path, facts.st_size, facts.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _sha256(path: Path, size: int, modified_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
