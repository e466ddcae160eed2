"""Stories, features and videos made for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmark.features import FeatureTable
from benchmark.stories import Scene, Shot, ShotKey, Story


def story(key="tale", layout=(3, 2), cuts=None, prompts=None, **fields) -> Story:
    """A story with so many shots in each scene, numbered from 1."""
    scenes, n = [], 0
    for scene, count in enumerate(layout, 1):
        shots = []
        for shot in range(1, count + 1):
            text = prompts[n] if prompts else f"prompt {scene} {shot}."
            cut = cuts[n] if cuts else shot == 1
            shots.append(Shot(key=ShotKey(scene, shot), prompt=text, cut=cut))
            n += 1
        scenes.append(Scene(number=scene, shots=tuple(shots)))
    return Story(key=key, scenes=tuple(scenes), **fields)


def features(stories, shot_feature, *, frames=17, noise=0.0, seed=0, width=8) -> FeatureTable:
    """All video kinds of a method whose shots have the features that `shot_feature(story, key)` gives."""
    rng, arrays, rates = np.random.default_rng(seed), {}, {}

    def around(feature, count):
        return feature + noise * rng.normal(size=(count, width))

    for s in stories.values():
        for shot in s.shots:
            feature = shot_feature(s.key, shot.key)
            rates[s.key, tuple(shot.key)] = 16.0
            for kind in ("clip_b32", "dino_b14"):
                arrays[s.key, tuple(shot.key), kind] = around(feature, frames)
            arrays[s.key, tuple(shot.key), "viclip_24"] = around(feature, 3)
            arrays[s.key, tuple(shot.key), "viclip_8"] = around(feature, 1)[0]
            arrays[s.key, tuple(shot.key), "text"] = feature
        for scene in s.scenes:
            parts = [arrays[s.key, tuple(shot.key), "viclip_24"] for shot in scene.shots]
            arrays[s.key, (scene.number,), "viclip_24"] = np.concatenate(parts)
            arrays[s.key, (scene.number,), "text"] = np.mean(parts, axis=(0, 1))
    return FeatureTable(arrays, rates=rates)


def video(path: Path, pictures, fps=16, codec="libx264") -> Path:
    """Write uint8 [h, w, 3] pictures."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options={"crf": "10"})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def moving(count=12, seed=0, size=(90, 160), speed=2, brightness=1.0):
    """Pictures of blobs that move to the left."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 255, (size[0] // 15, (size[1] + speed * count) // 15 + 2, 3))
    wide = np.kron(small, np.ones((15, 15, 1)))[: size[0]] * brightness
    return [wide[:, speed * i : speed * i + size[1]].astype(np.uint8) for i in range(count)]
