"""From what a user names to the checkpoints that are meant; reads no values, only what there is.

What may be named as the model:

- nothing: the newest checkpoint of `make train`, else random weights of the debug size
- `debug`: random weights of the debug size
- a path: any form of `memento_model.checkpoints.forms`, or a run of `make train`
- a name of the table in `memento_model.checkpoints.released` whose files are on this machine
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from memento_model.checkpoints import released
from memento_model.checkpoints.forms import EXPERTS, FORMAT, Checkpoint, open_checkpoint
from memento_model.checkpoints.tensor_formats import read_json
from memento_model.config import Expert
from memento_model.errors import CheckpointError

TRAINED = Path("out/train")
"""Where `make train` leaves its checkpoints."""
DEBUG, NONE, AUTO = "debug", "none", "auto"


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """What a user says about the model; the defaults find what there is.

    Attributes:
        model: path, name, `debug`, or None; see `memento_model.checkpoints.choice`.
        adapter: LoRA and queries on top.
        t2v: Wan2.2-T2V for first shots: path or name; `none` lets the model itself make them.
        codec: `auto`, `wan`, `dct`, or the path of Wan's autoencoder.
        text: `auto`, `umt5`, `hashed`, or the path of umT5.
        clip: folder of CLIP; `none` compares thumbnails.
        device: `auto`, or what torch calls it.
        placement: of the experts; see `memento_model.story.experts`.
        dtype: `auto`, `fp32` or `bf16`.
        attention: kernel; see `memento_model.distributed.parallel`.
        compile: compile the blocks.
        merge: add the LoRA into the base weights: faster, less memory.
        trained: where our own checkpoints are looked for.
    """

    model: str | None = None
    adapter: str | None = None
    t2v: str | None = None
    codec: str = AUTO
    text: str = AUTO
    clip: str | None = None
    device: str = AUTO
    placement: Literal["auto", "both", "shard", "one", "layers"] = "auto"
    dtype: Literal["auto", "fp32", "bf16"] = "auto"
    attention: Literal["auto", "sdpa", "cudnn", "flash", "flash3", "sage", "math"] = "auto"
    compile: bool = False
    merge: bool = True
    trained: Path = TRAINED


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The checkpoints of a model with memory.

    Attributes:
        shown: how the user knows it.
        base: with the base weights of either expert; empty for random weights.
        trainable: with LoRA and queries; an expert may lack them.
        told: what our own training wrote about itself: codec, text, compat, ...
        stand_in: the one expert there is, where it has to serve all noise levels.
        foreign: other people's weights, made for Wan's codec and text encoder.
    """

    shown: str
    base: Mapping[Expert, Checkpoint] = field(default_factory=dict)
    trainable: Mapping[Expert, Checkpoint] = field(default_factory=dict)
    told: Mapping[str, Any] = field(default_factory=dict)
    stand_in: Expert | None = None
    foreign: bool = False

    @property
    def random(self) -> bool:
        """Whether there are no weights at all."""
        return not self.base


def locate(asked: str) -> Path:
    """The path of weights that a user named by path or by the table's name.

    Raises:
        WeightsMissing: a name of the table whose files are not here.
        CheckpointError: neither.
    """
    path = Path(asked).expanduser()
    if path.exists():
        return path
    if asked in released.TABLE:
        return released.resolve(asked)
    raise CheckpointError(
        f"{asked}: no such file or folder, and no name of weights ({', '.join(released.TABLE)})"
    )


def choose(model: str | None, adapter: str | None, trained: Path = TRAINED) -> Sources:
    """The checkpoints that are meant.

    Args:
        model: see the module's text; None is nothing.
        adapter: path or name of LoRA and queries to put on top of the model.
        trained: where to look for our own checkpoints.

    Raises:
        CheckpointError: nothing usable there.
        WeightsMissing: named, but not on this machine.
    """
    if model is None and adapter is not None:
        model = "wan22_i2v_a14b"  # what all published adapters are made for
    if model == DEBUG:
        if adapter is not None:
            raise CheckpointError("--adapter needs weights to go with: name them with --model")
        return Sources(shown="debug model, random weights")
    if model is None:
        return newest(trained) or Sources(shown="debug model, random weights")
    place = locate(model)
    if is_run(place) and (found := newest(place)):
        return _with_adapter(found, adapter)
    checkpoint = open_checkpoint(place)
    if checkpoint.kind == "ours":
        return _with_adapter(_of_ours([checkpoint], model), adapter)
    base: dict[Expert, Checkpoint] = {e: checkpoint for e in EXPERTS if e in checkpoint.experts}
    if lacking := [e for e in EXPERTS if e not in base or checkpoint.experts[e].base is None]:
        raise CheckpointError(
            f"{checkpoint.path}: no base weights of the {' and the '.join(lacking)}-noise expert; --model "
            "takes a folder with both experts (adapters go into --adapter)"
        )
    return _with_adapter(Sources(shown=model, base=base, foreign=True), adapter)


def _with_adapter(sources: Sources, adapter: str | None) -> Sources:
    if adapter is None:
        return sources
    checkpoint = open_checkpoint(locate(adapter))
    found: dict[Expert, Checkpoint] = {}
    for expert in EXPERTS:
        if expert not in checkpoint.experts or checkpoint.experts[expert].trainable is None:
            raise CheckpointError(
                f"{checkpoint.path}: no LoRA of the {expert}-noise expert; --adapter takes both experts' "
                "(a folder of two files, or our own checkpoint)"
            )
        found[expert] = checkpoint
    return Sources(
        shown=f"{sources.shown} + {adapter}",
        base=sources.base,
        trainable=found,
        told={**sources.told, **told_by(checkpoint)},
        foreign=sources.foreign,
    )


def newest(trained: Path) -> Sources | None:
    """The newest of our own checkpoints below a folder; the other expert from the next one trained alike."""
    kept = _newest(trained)
    return _of_ours(kept, " + ".join(str(one.path) for one in kept)) if kept else None


def open_weights(path: Path) -> Checkpoint:
    """Like `open_checkpoint`; the folder of a training run is the newest checkpoint of either expert.

    Raises:
        CheckpointError: neither.
    """
    kept = _newest(path) if is_run(path) else []
    if not kept:
        return open_checkpoint(path)
    by_expert = {expert: one for one in reversed(kept) for expert in one.experts}
    notes = {expert: one.notes[expert] for expert, one in by_expert.items() if expert in one.notes}
    return Checkpoint(
        path=path,
        kind="ours",
        experts={expert: by_expert[expert].experts[expert] for expert in EXPERTS if expert in by_expert},
        settings={**kept[0].settings, "notes": notes},
    )


def _newest(trained: Path) -> list[Checkpoint]:
    complete = (
        file
        for file in trained.rglob("config.json")
        if not any(part.startswith(".") for part in file.relative_to(trained).parts)  # still being written
    )
    found = sorted(
        (file for file in complete if _is_ours(file)),
        key=lambda file: (-file.stat().st_mtime_ns, str(file)),
    )
    kept = [open_checkpoint(found[0].parent)] if found else []
    for file in found[1:]:
        if all(expert in one.experts for one in kept for expert in EXPERTS) or len(kept) == len(EXPERTS):
            break
        first, other = kept[0], open_checkpoint(file.parent)
        same = other.settings.get("model") == first.settings.get("model")
        same = same and len({_json(told) for one in (first, other) for told in trained_as(one).values()}) < 2
        if same and not other.experts.keys() <= first.experts.keys():
            kept.append(other)
    return kept


def is_run(folder: Path) -> bool:
    """Whether a folder holds a training run's checkpoints, of one expert or of both."""
    return any(any(folder.glob(f"{below}step-*/config.json")) for below in ("", "*/"))


def _is_ours(file: Path) -> bool:
    try:
        return read_json(file).get("format") == FORMAT
    except (CheckpointError, AttributeError):
        return False


def _of_ours(checkpoints: list[Checkpoint], shown: str) -> Sources:
    """Our own checkpoints as a model; the base of adapters alone is where their training says."""
    by_expert = {e: one for one in reversed(checkpoints) for e in one.experts}
    told = {key: value for one in reversed(checkpoints) for key, value in told_by(one).items()}
    base: dict[Expert, Checkpoint] = {}
    for expert, one in by_expert.items():
        base[expert] = one if one.experts[expert].base is not None else _base_of(one, told)
    present = next(expert for expert in EXPERTS if expert in by_expert)
    stand_in: Expert | None = None
    for expert in EXPERTS:
        if expert not in base:
            base[expert] = base[present]
            there = base[present].experts.get(expert)
            stand_in = None if there is not None and there.base is not None else present
    trainable = {e: one for e, one in by_expert.items() if one.experts[e].trainable is not None}
    foreign = any(one.kind != "ours" for one in base.values())
    return Sources(shown=shown, base=base, trainable=trainable, told=told, stand_in=stand_in, foreign=foreign)


def _base_of(checkpoint: Checkpoint, told: Mapping[str, Any]) -> Checkpoint:
    if not told.get("base"):
        raise CheckpointError(
            f"{checkpoint.path}: holds adapters only; name the weights they were trained on: "
            f"--model BASE --adapter {checkpoint.path}"
        )
    return open_checkpoint(locate(str(told["base"])))


def told_by(checkpoint: Checkpoint) -> dict[str, Any]:
    """What the training that made a checkpoint wrote about itself: its settings, flat."""
    made: dict[str, Any] = {}
    for said in checkpoint.notes.values():
        made |= {**_mapping(said.get("config")), **said}
    return made


def trained_as(checkpoint: Checkpoint) -> dict[Expert, dict[str, Any]]:
    """Of every expert whose training told: what sampling has to follow, by the names of its settings.

    `learnable_query`, `split_attention`, `identity_probability` (0, or 1 for any share), `bank_frames` where
    memory is drawn, and `compat`.
    """
    made: dict[Expert, dict[str, Any]] = {}
    for expert, said in checkpoint.notes.items():
        told = {**_mapping(said.get("config")), **said}
        objective = _mapping(told.get("objective"))
        if not objective:
            continue
        followed = {name: objective.get(name) for name in ("learnable_query", "split_attention")}
        followed["identity_probability"] = int(bool(objective.get("identity_probability")))
        if not followed["learnable_query"]:
            followed["bank_frames"] = objective.get("bank_frames")
        made[expert] = {**followed, "compat": _mapping(told.get("compat"))}
    return made


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=dict)
