"""Which shot shows which other shot's video, for controls of which it is known how they must score.

Prompts stay where they are. `benchmark.controls` makes methods of it.
"""

from __future__ import annotations

from collections.abc import Mapping

from benchmark.features import FeatureStore
from benchmark.stories import ShotKey, Story

Place = tuple[str, ShotKey]
"""A story and a shot."""


def shuffled(stories: Mapping[str, Story], store: FeatureStore) -> dict[Place, Place]:
    """Each shot from another story than its neighbours; with three stories or more, never from its own."""
    there = {key: shots for key in sorted(stories) if (shots := _present(stories[key], store))}
    keys = list(there)
    if len(keys) < 2:
        return {}
    source: dict[Place, Place] = {}
    for number, key in enumerate(keys):
        for place, shot in enumerate(there[key]):
            step = 1 + place % (len(keys) - 1) if len(keys) > 2 else place + 1
            other = keys[(number + step) % len(keys)]
            source[key, shot] = (other, there[other][place % len(there[other])])
    return source


def reversed_order(stories: Mapping[str, Story], store: FeatureStore) -> dict[Place, Place]:
    """The shots that there are, last first."""
    source: dict[Place, Place] = {}
    for key in sorted(stories):
        shots = _present(stories[key], store)
        source |= {(key, a): (key, b) for a, b in zip(shots, shots[::-1], strict=True) if a != b}
    return source


def swapped_identities(stories: Mapping[str, Story], store: FeatureStore) -> dict[Place, Place]:
    """Every second shot of one of a story's two most frequent characters, and one of the other, exchanged.

    Shots in which both appear stay.

    Not all of them: exchanged throughout, two characters are as consistent as before.
    """
    source: dict[Place, Place] = {}
    for key in sorted(stories):
        present = set(_present(stories[key], store))
        seen = {name: set(shots) & present for name, shots in stories[key].characters().items()}
        two = sorted(seen, key=lambda name: (-len(seen[name]), name))[:2]
        if len(two) < 2:
            continue
        first, second = sorted(seen[two[0]] - seen[two[1]]), sorted(seen[two[1]] - seen[two[0]])
        for a, b in list(zip(first, second, strict=False))[::2]:
            source |= {(key, a): (key, b), (key, b): (key, a)}
    return source


def _present(story: Story, store: FeatureStore) -> list[ShotKey]:
    return [shot.key for shot in story.shots if store.num_frames(story.key, shot.key)]
