"""Weights of the model in every form there is, opened alike and checked.

Forms: a native Wan2.2 folder (`high_noise_model/`, `low_noise_model/`), a diffusers folder (`transformer/` is
high noise, `transformer_2/` low), files of adapters and queries (Memento's 824 tensors per expert, StoryMem's
800, any spelling of `memento_model.checkpoints.names`), single files of base weights, and ours:

    config.json                 {"format": "memento-checkpoint", "version": 1, "model": {ModelConfig}, ...}
    low/base.safetensors        the expert, diffusers' names; only if it is not Wan's own
    low/trainable.safetensors   LoRA and KeyframeQuery, official names without a prefix
    high/...                    likewise

Everything is checked against the model's names and shapes before a value is read. A wrong or partial file is
a `CheckpointError` that names what is missing.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from memento_model.checkpoints import names
from memento_model.checkpoints.carried import check_queries, notes_of
from memento_model.checkpoints.foreign_config import (
    config_of_base,
    config_of_trainable,
    from_our_config,
    lora_shapes,
    query_shapes,
)
from memento_model.checkpoints.tensor_files import TensorSet, open_tensors
from memento_model.checkpoints.tensor_formats import INDEX_ENDING, read_json
from memento_model.config import Expert, ModelConfig
from memento_model.errors import CheckpointError
from memento_model.nn.transformer import MementoTransformer

FORMAT, VERSION = "memento-checkpoint", 1
EXPERTS: tuple[Expert, Expert] = ("high", "low")
FOLDERS = {
    "native": {"high": "high_noise_model", "low": "low_noise_model"},
    "diffusers": {"high": "transformer", "low": "transformer_2"},
}
QUERY_NORMS = tuple(f"query_to_{part}.norm_{side}.weight" for part in ("text", "visual") for side in "qk")

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a checkpoint holds of one expert.

    Attributes:
        base: where the expert's own weights are; None if they are Wan's and lie elsewhere.
        trainable: where LoRA and queries are; None if there are none.
    """

    base: Path | None = None
    trainable: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """An opened checkpoint; values are read by `base` and `trainable`.

    Attributes:
        path: as given.
        kind: `native`, `diffusers`, `ours` or `file` (one or two files of weights).
        experts: what there is of each.
        settings: of our own config file; of files that our training exported, `notes` as they carry them;
            empty for others.
    """

    path: Path
    kind: str
    experts: Mapping[Expert, Parts]
    settings: Mapping[str, Any]

    @property
    def notes(self) -> dict[Expert, Mapping[str, Any]]:
        """What the training of each expert wrote about itself; nothing for weights of others."""
        told = self.settings.get("notes")
        told = told if isinstance(told, Mapping) else {}
        return {expert: told[expert] for expert in EXPERTS if isinstance(told.get(expert), Mapping)}

    def base(self, expert: Expert) -> tuple[TensorSet, ModelConfig]:
        """The expert's own tensors by our names, and its sizes.

        Raises:
            CheckpointError: not there, incomplete, of other shapes, or another kind of model.
        """
        place = self._parts(expert).base
        if place is None:
            raise CheckpointError(f"{self.path}: holds no base weights of the {expert}-noise expert")
        tensors = as_ours(open_tensors(place))
        folder = place if place.is_dir() else place.parent
        there = self.kind != "ours" and (folder / "config.json").is_file()
        settings = read_json(folder / "config.json") if there else {}
        if self.kind == "ours":
            config = from_our_config(self.settings.get("model"), self.path / "config.json")
        else:
            shapes = {name: entry.shape for name, entry in tensors.items()}
            config = config_of_base(shapes, settings, tensors.source)
        tensors.check(base_shapes(config))
        return tensors, config

    def trainable(self, expert: Expert) -> tuple[TensorSet, ModelConfig]:
        """LoRA and, unless it is StoryMem's form, queries by our names; and what they tell of the sizes.

        Raises:
            CheckpointError: not there, not exactly 20 tensors per block and 24 (or no) queries, or the
                other expert's.
        """
        place = self._parts(expert).trainable
        if place is None:
            raise CheckpointError(f"{self.path}: holds no LoRA weights of the {expert}-noise expert")
        tensors = _of_expert(open_tensors(place), expert)
        shapes = {name: entry.shape for name, entry in tensors.items()}
        queries = any(name.startswith("keyframe_query.") for name in shapes)
        carried = self.notes.get(expert) if self.kind == "file" else None
        if self.kind == "ours":
            config = from_our_config(self.settings.get("model"), self.path / "config.json")
        elif carried:
            config = from_our_config(carried["model"], tensors.source)
            check_queries(carried, queries=queries, source=tensors.source)
        else:
            config = config_of_trainable(shapes, tensors.source)
        tensors.check(lora_shapes(config) | (query_shapes(config) if queries else {}))
        for line in dead_norms(tensors):
            log.warning("%s", line)
        return tensors, config

    def _parts(self, expert: Expert) -> Parts:
        if expert not in self.experts:
            raise CheckpointError(
                f"{self.path}: holds nothing of the {expert}-noise expert, only of: {', '.join(self.experts)}"
            )
        return self.experts[expert]


def open_checkpoint(path: Path) -> Checkpoint:
    """Find out what a file or folder is.

    Raises:
        CheckpointError: none of the forms in this module's text.
    """
    path = Path(path)
    if (path / "config.json").is_file():
        settings = read_json(path / "config.json")
        if "format" in settings:
            return _ours(path, settings)
    for kind, folders in FOLDERS.items():
        found = {expert: path / folder for expert, folder in folders.items() if (path / folder).is_dir()}
        if found:
            experts = {expert: _parts_at(found[expert]) for expert in EXPERTS if expert in found}
            return Checkpoint(path=path, kind=kind, experts=experts, settings={})
    named = _files_by_expert(path) if path.is_dir() else {}
    if named:
        return _of_files(path, {expert: _parts_at(named[expert]) for expert in EXPERTS if expert in named})
    parts = _parts_at(path)  # one file or folder of weights; its name may say which expert's
    says = [expert for expert in EXPERTS if _names_expert(path.name, expert)]
    spelt = _spelt_experts(path) if parts.trainable else []
    if path.is_file() and len(says) == 1 and spelt and says[0] not in spelt:
        raise CheckpointError(
            f"{path}: named as the {says[0]}-noise expert's, but its tensors begin with "
            f"{spelt[0]}_noise_model.; rename the file if the tensors are right"
        )
    chosen = spelt or (says if len(says) == 1 else list(EXPERTS))
    return _of_files(path, dict.fromkeys(chosen, parts))


def _of_files(path: Path, experts: dict[Expert, Parts]) -> Checkpoint:
    """One or two files, with what they tell of their training."""
    adapters = {expert: parts.trainable for expert, parts in experts.items() if parts.trainable}
    notes = notes_of({expert: open_tensors(place).source for expert, place in adapters.items()})
    return Checkpoint(path=path, kind="file", experts=experts, settings={"notes": notes} if notes else {})


def _ours(path: Path, settings: Mapping[str, Any]) -> Checkpoint:
    if settings["format"] != FORMAT or settings.get("version") != VERSION:
        raise CheckpointError(
            f"{path / 'config.json'}: format {settings['format']!r} version {settings.get('version')!r}; "
            f"this program reads {FORMAT} version {VERSION}"
        )
    experts: dict[Expert, Parts] = {}
    for expert in EXPERTS:
        base = path / expert / "base.safetensors"
        base = base if base.is_file() else path / expert / f"base{INDEX_ENDING}"
        trainable = path / expert / "trainable.safetensors"
        if base.is_file() or trainable.is_file():
            experts[expert] = Parts(
                base=base if base.is_file() else None, trainable=trainable if trainable.is_file() else None
            )
        listed = settings.get("experts", {}).get(expert, [])
        for part in listed if isinstance(listed, list) else []:
            if expert not in experts or getattr(experts[expert], str(part), None) is None:
                raise CheckpointError(f"{path / expert}: lacks {part}.safetensors, which config.json lists")
    if not experts:
        raise CheckpointError(f"{path}: config.json is there, the weights (high/, low/) are not")
    return Checkpoint(path=path, kind="ours", experts=experts, settings=settings)


def _parts_at(place: Path) -> Parts:
    """Base weights or adapters, by the names inside."""
    found = open_tensors(place)
    if any(".lora_" in name or "keyframe_query." in name for name in found):
        return Parts(trainable=place)
    return Parts(base=place)


def _files_by_expert(folder: Path) -> dict[Expert, Path]:
    """Weight files of a folder whose names say which expert they belong to, one each."""
    files = [file for file in sorted(folder.iterdir()) if file.suffix in (".safetensors", ".pth", ".pt")]
    made: dict[Expert, Path] = {}
    for expert in EXPERTS:
        fitting = [file for file in files if _names_expert(file.name, expert)]
        if len(fitting) > 1:
            listed = ", ".join(file.name for file in fitting[:3])
            raise CheckpointError(
                f"{folder}: {len(fitting)} files for the {expert}-noise expert ({listed}); name one"
            )
        if fitting:
            made[expert] = fitting[0]
    return made


def _names_expert(name: str, expert: Expert) -> bool:
    return re.search(rf"(^|[^a-z]){expert}([^a-z]|$)", name.lower()) is not None


def _spelt_experts(place: Path) -> list[Expert]:
    """Experts that the names in a file of adapters say."""
    said = {names.from_spelling(name)[1].expert for name in as_spelt(open_tensors(place))}
    return [expert for expert in EXPERTS if expert in said]


def as_spelt(tensors: TensorSet) -> TensorSet:
    """The same set, after a check that every name is one of an adapter or a query.

    Raises:
        CheckpointError: with the first that is not.
    """
    for name in tensors:
        try:
            names.from_spelling(name)
        except KeyError as error:
            raise CheckpointError(f"{tensors.source}: {error.args[0]}") from error
    return tensors


def as_ours(tensors: TensorSet) -> TensorSet:
    """Base weights by our names, whether native or diffusers'.

    Raises:
        CheckpointError: with the first unknown name.
    """
    wrapped = [name for name in tensors if name.startswith(names.BUNDLED)]
    if wrapped:
        tensors = tensors.chosen(wrapped).renamed(lambda name: name.removeprefix(names.BUNDLED))
    native = any(name.startswith("time_projection.") for name in tensors)
    return tensors.renamed(names.from_native) if native else tensors


def _of_expert(tensors: TensorSet, expert: Expert) -> TensorSet:
    """The tensors of one expert in a file that may hold both, by our names."""
    said = {name: names.from_spelling(name)[1].expert for name in as_spelt(tensors)}
    wanted = [name for name, spelt in said.items() if spelt in (expert, None)]
    if not wanted:
        raise CheckpointError(
            f"{tensors.source}: holds the other expert's weights, not the {expert}-noise one's"
        )
    return tensors.chosen(wanted).renamed(lambda name: names.from_spelling(name)[0])


def dead_norms(tensors: TensorSet) -> list[str]:
    """One line if norm weights of the queries are all zero: attention is then plain averaging, for good."""
    dead = [
        name
        for name in (f"keyframe_query.{norm}" for norm in QUERY_NORMS)
        if name in tensors and not tensors.read(name).any()
    ]
    if not dead:
        return []
    return [
        f"{tensors.source}: {len(dead)} of {len(QUERY_NORMS)} norms of KeyframeQuery are all zero "
        f"({', '.join(dead)}): its queries average all tokens instead of choosing, and training from here "
        "cannot mend that; start its norms at 1"
    ]


def base_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of an expert's own tensors; 1095 at full size."""
    with torch.device("meta"):
        state = MementoTransformer.from_config(config).state_dict()
    return {name: tuple(value.shape) for name, value in state.items()}
