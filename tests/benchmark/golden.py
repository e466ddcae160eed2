"""The golden stories and features of the metrics."""

from __future__ import annotations

import json
from functools import cache

import numpy as np

from benchmark.features import FeatureTable
from benchmark.stories import Scene, Shot, ShotKey, Story
from tests.support import GOLDEN

FOLDER = GOLDEN / "metrics"


def values(name: str):
    return json.loads((FOLDER / name).read_text())


@cache
def stories() -> dict[str, Story]:
    found = {}
    for story in values("manifest.json")["stories"]:
        scenes = [
            Scene(
                number=scene["scene"],
                shots=tuple(Shot(key=key(s["id"]), prompt=s["prompt"]) for s in scene["shots"]),
            )
            for scene in story["scenes"]
        ]
        found[story["name"]] = Story(key=story["name"], scenes=tuple(scenes))
    return found


@cache
def frames() -> dict[tuple[str, ShotKey], int]:
    listed = values("manifest.json")["stories"]
    shots = [
        (story["name"], shot) for story in listed for scene in story["scenes"] for shot in scene["shots"]
    ]
    return {(name, key(shot["id"])): shot["frames"] for name, shot in shots}


@cache
def table() -> FeatureTable:
    from safetensors.numpy import load_file

    arrays = {}
    for name, array in load_file(FOLDER / "features.safetensors").items():
        story, *unit, kind = name.split("/")
        numbers = tuple(int(n) for n in unit[0].split("_")) if unit else ()
        arrays[story, numbers, "text" if kind == "overview_text" else kind] = array
    return FeatureTable(arrays)


def key(stem: str) -> ShotKey:
    return ShotKey(*map(int, stem.split("_")))


def nan(value):
    return np.nan if value is None else value
