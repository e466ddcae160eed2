"""Published weights that stories can be made with: one table, where they lie here, and how to fetch them.

Nothing is downloaded but by `pull`, that is when a person asked for it (`memento weights pull NAME`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from curation import repositories, weights
from curation.optional import own_command, require
from curation.weights import WeightsMissing

FILES = ("*.json", "*.safetensors", "*.pth", "*.model", "LICENSE*")
"""What `pull` takes of a repository; code is never among it."""


@dataclass(frozen=True, kw_only=True)
class Released:
    """A repository on the Hugging Face hub.

    Attributes:
        repository: owner/name.
        licence: as its source states it.
        what: one line for a person.
        size_gb: of the download, about.
        needs: files and folders without which it cannot be used; of alternatives, one is enough.
        files: what `pull` takes.
        inside: the folder of the repository that is used; empty for all of it.
    """

    repository: str
    licence: str
    what: str
    size_gb: float
    needs: tuple[tuple[str, ...], ...]
    files: tuple[str, ...] = FILES
    inside: str = ""


_ADAPTERS = (("backbone_high_noise.safetensors",), ("backbone_low_noise.safetensors",))
_NATIVE = (
    ("high_noise_model",),
    ("low_noise_model",),
    ("Wan2.1_VAE.pth", "Wan2.1_VAE.safetensors"),
    ("models_t5_umt5-xxl-enc-bf16.pth", "models_t5_umt5-xxl-enc-bf16.safetensors"),
)
TABLE: dict[str, Released] = {
    "wan22_i2v_a14b": Released(
        repository="Wan-AI/Wan2.2-I2V-A14B",
        licence="Apache-2.0",
        what="base model of Memento, with video codec and text encoder",
        size_gb=126,
        needs=_NATIVE,
    ),
    "wan22_t2v_a14b": Released(
        repository="Wan-AI/Wan2.2-T2V-A14B",
        licence="Apache-2.0",
        what="makes first shots",
        size_gb=126,
        needs=_NATIVE,
    ),
    "memento": Released(
        repository="ernie-research/Memento",
        licence="Apache-2.0 (model card)",
        what="Memento's LoRA and queries, both experts",
        size_gb=3.3,
        needs=_ADAPTERS,
    ),
    "storymem": Released(
        repository="Kevin-thu/StoryMem",
        licence="CC BY-NC 4.0 (model card), non-commercial",
        what="StoryMem's LoRA for memory and a first frame, both experts",
        size_gb=4.9,
        needs=_ADAPTERS,
        files=("Wan2.2-MI2V-A14B/*.safetensors",),
        inside="Wan2.2-MI2V-A14B",
    ),
    "clip_vit_b32": Released(
        repository="openai/clip-vit-base-patch32",
        licence="MIT",
        what="likeness of pictures: StoryMem's keyframes, drift curves",
        size_gb=0.6,
        needs=(("config.json",), ("model.safetensors", "pytorch_model.bin")),
        files=("config.json", "*.bin"),
    ),
}


def command(name: str) -> str:
    """What to type to get the weights of that name."""
    return own_command(f"weights pull {name}")


def candidates(name: str) -> Iterator[Path]:
    """The folders where the weights may lie, best first: ours by hand, then the hub's caches."""
    for place in _repositories(name):
        if TABLE[name].inside:
            yield place / TABLE[name].inside
        yield place


def _repositories(name: str) -> Iterator[Path]:
    repository = TABLE[name].repository
    yield weights.folder() / name
    yield weights.folder() / repository.rpartition("/")[2]
    for cache in repositories.hub_caches():
        folder = cache / ("models--" + repository.replace("/", "--"))
        ref = folder / "refs" / "main"
        if ref.is_file():
            yield folder / "snapshots" / ref.read_text().strip()


def missing(name: str, folder: Path) -> list[str]:
    """What a folder lacks to be the weights of that name."""
    return [
        " or ".join(choices)
        for choices in TABLE[name].needs
        if not any(any(folder.glob(pattern)) for pattern in choices)
    ]


def find(name: str) -> Path | None:
    """The complete folder on this machine, or None."""
    return next((place for place in candidates(name) if place.is_dir() and not missing(name, place)), None)


def resolve(name: str) -> Path:
    """The complete folder on this machine.

    Raises:
        WeightsMissing: not here; with the command that fetches it.
    """
    found = find(name)
    if found is None:
        places = ", ".join(dict.fromkeys(str(place) for place in candidates(name)))
        raise WeightsMissing(
            f"{name} ({TABLE[name].what}, {TABLE[name].size_gb:g} GB) is not on this machine (looked for "
            f"{places} and the hub's cache); get it with: {command(name)}"
        )
    return found


def pull(name: str) -> Path:
    """Download a repository into the hub's cache, below `MEMENTO_WEIGHTS` where that is set.

    An interrupted download goes on where it stopped.

    Raises:
        WeightsMissing: the download failed, or what came is not complete.
        MissingExtra: huggingface_hub is not installed.
    """
    made = TABLE[name]
    hub = require("huggingface_hub", extra="train")
    cache = repositories.hub_caches()[0 if os.environ.get(weights.FOLDER_VARIABLE) else 1]
    try:
        folder = Path(
            hub.snapshot_download(made.repository, cache_dir=str(cache), allow_patterns=list(made.files))
        )
    except (OSError, ValueError, RuntimeError) as error:  # what the hub's and HTTP errors derive from
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise WeightsMissing(
            f"{name}: cannot download {made.repository} ({first}); fetch it by hand (hf download "
            f"{made.repository}) or copy its folder to {weights.folder() / name}"
        ) from error
    folder /= made.inside
    if lacks := missing(name, folder):
        raise WeightsMissing(f"{name}: {folder} lacks {', '.join(lacks)} after the download")
    return folder
