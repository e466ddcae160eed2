"""Settings of a training inside the files that it exports: a text in the header of safetensors.

The released layout is two files of tensors, which the official code reads; it leaves the header's texts
alone. Ours say there how the weights were trained, because tensors cannot: attention, reconstruction slot,
memory positions, codec. Files of others have no such text, and are known by what they hold.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from memento_model.checkpoints import released
from memento_model.checkpoints.foreign_config import from_our_config, to_our_config
from memento_model.checkpoints.tensor_formats import safetensors_texts
from memento_model.config import Compat, Expert, FrameGrid, ModelConfig
from memento_model.errors import CheckpointError
from memento_model.training.config import ObjectiveConfig

KEY, VERSION = "memento_training", 1
SHARED = (
    "name", "expert", "train_base", "codec", "text", "grid", "compat", "objective", "optim", "steps", "seed",
)  # fmt: skip
"""Of a run's settings: what says something of the weights; paths of the machine are none of it."""
NOTED = ("step", "samples", "validation", "weights")


def texts_for(expert: Expert, config: ModelConfig, notes: Mapping[str, Any] | None) -> dict[str, str]:
    """What to write into the header of a file of adapters.

    Args:
        expert: whose adapters they are.
        config: of the model they belong to.
        notes: of the checkpoint they come from; None or empty where it has none.
    """
    if not notes:
        return {}
    told = notes.get("config")
    kept = {name: notes[name] for name in NOTED if name in notes}
    if isinstance(told, Mapping):
        kept["config"] = {name: told[name] for name in SHARED if name in told}
        if (base := told.get("base")) in released.TABLE:
            kept["config"]["base"] = base
    made = {"version": VERSION, "expert": expert, "model": to_our_config(config), "notes": kept}
    return {KEY: json.dumps(made)}


def notes_of(files: Mapping[Expert, Path]) -> dict[Expert, dict[str, Any]]:
    """What files of adapters tell of their training; nothing for those that carry no such text.

    Args:
        files: of each expert.

    Raises:
        CheckpointError: the text is damaged, of another version, or of the other expert.
    """
    made: dict[Expert, dict[str, Any]] = {}
    for expert, file in files.items():
        text = safetensors_texts(file).get(KEY) if file.suffix == ".safetensors" else None
        if text is None:
            continue
        told = _object(text, file)
        if told.get("version") != VERSION:
            raise CheckpointError(
                f"{file}: its settings are of version {told.get('version')!r}; this program reads {VERSION}"
            )
        if told.get("expert") != expert:
            raise CheckpointError(
                f"{file}: trained as the {told.get('expert')}-noise expert, not the {expert}-noise one"
            )
        made[expert] = {**_notes(told.get("notes"), file), "model": _model(told.get("model"), file)}
    return made


def check_queries(notes: Mapping[str, Any], *, queries: bool, source: Path) -> None:
    """Refuse a file whose settings say one thing and whose tensors another.

    Raises:
        CheckpointError: trained with queries that are not there, or the other way round.
    """
    said = notes.get("config", {}).get("objective", {}).get("learnable_query")
    if said is None or said == queries:
        return
    held = "holds queries (KeyframeQuery)" if queries else "holds none"
    trained = "with queries (KeyframeQuery)" if said else "without queries"
    raise CheckpointError(f"{source}: trained {trained}, as its settings say, but {held}; export it again")


def _object(text: str, file: Path) -> dict[str, Any]:
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise CheckpointError(f"{file}: the settings in its header ({KEY}) are damaged; export it again")
    return told


def _model(values: Any, file: Path) -> dict[str, Any]:
    """The model's sizes, checked; as JSON values."""
    return to_our_config(from_our_config(values, file))


def _notes(values: Any, file: Path) -> dict[str, Any]:
    """Notes whose settings have the names and types that sampling relies on."""
    config = values.get("config", {}) if isinstance(values, dict) else None
    if not isinstance(config, dict):
        raise CheckpointError(f"{file}: the settings in its header ({KEY}) are damaged; export it again")
    for part, form in (("compat", Compat), ("objective", ObjectiveConfig), ("grid", FrameGrid)):
        given = config.get(part, {})
        if not isinstance(given, dict):
            raise CheckpointError(f"{file}: its setting {part} is {given!r}, not a set of settings")
        wrong = next(_wrong(given, get_type_hints(form)), None)
        if wrong is not None:
            raise CheckpointError(f"{file}: its setting {part}.{wrong} is {given[wrong]!r}, which cannot be")
    return dict(values)


def _wrong(given: Mapping[str, Any], hints: Mapping[str, Any]) -> Iterator[str]:
    """Names of settings with values of another type; settings that this version does not know are let be."""
    for name, value in given.items():
        hint = hints.get(name)
        if hint is not None and not _fits(value, hint):
            yield name


def _fits(value: Any, hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is hint
