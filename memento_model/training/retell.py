"""A sequence of the data as a story script, for the model to tell again.

A model that was trained on a few films from nothing knows their captions and no other words. So a run leaves,
in the data's own words, a story with pictures of its beginning to remember:

    OUTPUT/retell/retold.json             the captions of the clips after those, each as a shot
    OUTPUT/retell/references/00.png ...   frames of the clips up to the first that shows a subject well
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from curation.captions.grammar import labels, parse_inventory
from curation.stories.script import Scene, ShotPrompt, StoryError, StoryScript, write_story
from memento_model.config import FrameGrid
from memento_model.errors import DataError
from memento_model.story.video import write_pictures
from memento_model.training.clip_frames import read_frames
from memento_model.training.samples import Clip, TrainSequence

FOLDER, SCRIPT, REFERENCES = "retell", "retold.json", "references"
NUM_REFERENCES = 8


def write_retelling(sequences: Sequence[TrainSequence], output: Path, grid: FrameGrid) -> Path | None:
    """Write script and pictures of one sequence below a run's output, over those of a run before.

    Args:
        sequences: to choose from: held-out ones show more than those that were trained on.
        output: of the run.
        grid: size of the pictures.

    Returns:
        The script, or None where a clip cannot be read any more or captions make no script.
    """
    chosen = choose(sequences)
    script = output / FOLDER / SCRIPT
    try:
        pictures = _pictures(chosen.clips[: remembered(chosen)], grid)
        write_story(story_of(chosen), script)
    except (DataError, StoryError):
        return None
    write_pictures(script.parent / REFERENCES, pictures)
    return script


def choose(sequences: Sequence[TrainSequence]) -> TrainSequence:
    """One with a subject to reconstruct and the most shots to tell; of equals the last by id."""
    return max(
        sequences,
        key=lambda one: (bool(one.targets), len(one.clips) - remembered(one), one.sequence_id),
    )


def remembered(sequence: TrainSequence) -> int:
    """How many clips are remembered: up to the first with a target; at least one shot is left to tell."""
    first = min((one.clip for one in sequence.targets), default=0)
    return min(first + 1, len(sequence.clips) - 1)


def story_of(sequence: TrainSequence) -> StoryScript:
    """The clips that are not remembered as shots with a cut, in their captions' words."""
    shots = tuple(
        ShotPrompt(scene_num=1, shot_num=number, cut=True, prompt=clip.caption)
        for number, clip in enumerate(sequence.clips[remembered(sequence) :], 1)
    )
    looks = dict(pair for clip in sequence.clips for pair in parse_inventory(clip.global_caption))
    first = [label for one in sequence.targets[:1] for label in labels(one.caption)]
    shown = [label for shot in shots for label in labels(shot.prompt)]
    cast = [label for label in dict.fromkeys([*first, *shown]) if label in looks]
    return StoryScript(
        story_name="The training data, told again",
        story_overview=f"Sequence {sequence.sequence_id} in its own words; pictures of its beginning are "
        "remembered.",
        scenes=(Scene(scene_num=1, shots=shots),),
        reconstruct_target="\n".join(f"{label} {looks[label]}" for label in cast) or None,
        key=Path(SCRIPT).stem,
    )


def _pictures(clips: Sequence[Clip], grid: FrameGrid) -> list[np.ndarray]:
    """Frames of clips, uint8 [h, w, 3]: evenly from each."""
    made = []
    for number, clip in enumerate(clips):
        share = (number + 1) * NUM_REFERENCES // len(clips) - number * NUM_REFERENCES // len(clips)
        places = np.linspace(0, clip.num_frames - 1, min(share, clip.num_frames)).round().astype(int).tolist()
        frames = read_frames(clip.path, places, grid) if places else {}
        made += [frames[place].permute(1, 2, 0).numpy() for place in places]
    return made
