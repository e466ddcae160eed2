"""Where `memento eval` leaves a report: never in the place of a report of other methods."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark.report.results import NAME
from curation.engine.stage import StopRun
from pipelines.benchmark_inputs import MethodSpec

OUTPUT = Path("out/eval")
"""Holds the reports of those who name no folder, each in one of its own, and the features of all."""
FEATURES = "features"
LONGEST = 60
"""Letters of a folder's name; a longer one ends with a hash."""


def output_folder(methods: Sequence[str], preset: str, default: str = "memento") -> Path:
    """`out/eval/ours-theirs`, or `out/eval/ours-theirs-storymem` where the preset is not the usual one."""
    names = [*methods, *([] if preset == default else [preset])]
    name = re.sub(r"[^\w.=+-]+", "_", "-".join(names)).lstrip(".") or "report"
    if len(name) > LONGEST or name == FEATURES:
        name = f"{name[:LONGEST]}-{hashlib.sha256(repr(names).encode()).hexdigest()[:8]}"
    return OUTPUT / name


def features_folder(output: Path | None) -> Path:
    """Below the folder that the user named; else one for all reports, which share what was encoded."""
    return (output or OUTPUT) / FEATURES


def refuse_other(output: Path, specs: Iterable[MethodSpec]) -> None:
    """Let nothing be written over a report of other methods.

    Raises:
        StopRun: there is one: methods of other names, or of the same names whose videos lie elsewhere.
    """
    old = _methods(output / NAME)
    if not old:
        return
    roots = {spec.name: _roots(spec.path) for spec in specs}
    if old.keys() != roots.keys():
        told = f"a report of {', '.join(old)}"
    elif moved := [name for name, places in roots.items() if not _below(output, old[name], places)]:
        told = f"a report of other videos of {', '.join(moved)}"
    else:
        return
    raise StopRun(f"{output} holds {told}: give this one another folder with -o, or remove that one first")


def _methods(file: Path) -> dict[str, list[str]]:
    """Method -> paths of its videos of the report that is there; empty without one that can be read."""
    try:
        methods = json.loads(file.read_text(encoding="utf-8"))["methods"]
        return {method["name"]: _paths(method) for method in methods if not method["control"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _paths(method: Mapping[str, Any]) -> list[str]:
    return [video["path"] for shots in method["videos"].values() for video in shots.values()]


def _roots(path: Path) -> list[Path]:
    """Where a method's videos lie: its folder, or the files that a manifest names."""
    absolute = Path(os.path.abspath(path))
    if not path.is_file():
        return [absolute]
    try:
        named = [video["path"] for video in json.loads(path.read_text(encoding="utf-8"))["videos"]]
        return [Path(os.path.abspath(absolute.parent / name)) for name in named]
    except (OSError, ValueError, KeyError, TypeError):  # a manifest that cannot be read has no shots either
        return [absolute.parent]


def _below(output: Path, paths: Sequence[str], roots: Sequence[Path]) -> bool:
    """Whether paths relative to a report are of a method's videos; of none, it cannot be told."""
    absolute = [Path(os.path.abspath(output / path)) for path in paths]
    return not paths or any(path.is_relative_to(root) for path in absolute for root in roots)
