"""A scripted model that answers well: it reads the labels out of the question, as a real one would."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from curation.captions.schemas import STORY, SUBJECTS

LOOKS = (
    "young person with short dark hair wearing a plain red jacket",
    "older person with long grey hair wearing a wide blue coat",
    "tall person with a shaved head wearing a yellow jumper",
    "small brown creature with a white patch over one eye",
    "broad figure with green boots and a striped scarf",
    "slender figure with a black hat and white gloves",
)
LABEL = re.compile(r"\[[A-Z][A-Za-z]* [A-Z]{1,2}\]")


def answer_to(schema: Mapping[str, Any], question: str) -> dict[str, Any]:
    """The answer to a request with this schema; `question` is its last text."""
    properties = schema["properties"]
    if STORY in properties:
        labels = list(properties.get(SUBJECTS, {}).get("properties", {}))
        told = {label: LOOKS[i % len(LOOKS)] + _ordinal(i) for i, label in enumerate(labels)}
        who = " and ".join(labels) or "an empty landscape"
        story = (
            f"The sequence shows {who} in a wide valley under a pale sky. "
            "The light grows warmer from shot to shot until dusk falls over the hills and the river."
        )
        return {SUBJECTS: told, STORY: story} if labels else {STORY: story}
    if found := re.search(r"shows (\[[^\]]+\]): ", question):
        return {"caption": f"{found[1]} faces the camera in a medium view, lit from the left by low sun."}
    seen = LABEL.findall(re.search(r"visible in it: (.*?)\.", question)[1])
    acts = " ".join(f"{label} turns slowly and looks across the valley." for label in seen)
    scene = "A wide static view of a valley with a slow river, low hills and a pale, cloudless evening sky."
    return {"caption": f"{scene} {acts}".strip()}


def _ordinal(i: int) -> str:
    return f" and badge number {i + 1}"
