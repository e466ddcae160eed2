"""Scripts and videos for the tests of the benchmark's commands."""

from __future__ import annotations

import json
from pathlib import Path

from tests.benchmark import made


def script(key="tale", layout=(2, 1), rewritten=False) -> dict:
    """A story script in one of the two public encodings."""
    look = "global caption: [Person A]: tall; shot caption: " if rewritten else ""
    scenes = [
        {
            "scene_num": scene,
            "video_prompts": [f"{look}[Person A] walks through {key} {scene}.{i}." for i in range(count)],
            "cut": [i == 0 for i in range(count)],
        }
        for scene, count in enumerate(layout, 1)
    ]
    target = {"reconstruct_target": "[Person A] tall"} if rewritten else {}
    return {"story_name": key, "story_overview": f"All of {key}.", **target, "scenes": scenes}


def write_scripts(folder: Path, keys=("tale",), **of) -> Path:
    """Scripts in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for key in keys:
        (folder / f"{key}.json").write_text(json.dumps(script(key, **of)))
    return folder


def write_videos(
    folder: Path, keys=("tale",), layout=(2, 1), seed=0, frames=10, template="{s:02d}_{h:02d}"
) -> Path:
    """A video for each shot of the scripts, no two alike."""
    for number, key in enumerate(keys):
        shots = [(scene, shot) for scene, count in enumerate(layout, 1) for shot in range(1, count + 1)]
        for index, (scene, shot) in enumerate(shots, 1):
            name = template.format(s=scene, h=shot, i=index)
            pictures = made.moving(frames, seed=seed + 10 * number + index, size=(60, 90))
            made.video(folder / key / f"{name}.mp4", pictures)
    return folder
