"""Colours of the review: each use of film time has its own, the same on all pages of all datasets."""

from __future__ import annotations

import re
import zlib

from curation.framing.overlays import LOGO, SCENE_TEXT, SUBTITLE, TITLE
from curation.framing.pictures import OVERLAY_COLOURS
from curation.stages.sequences import (
    CONTEXT,
    MIXED_FIELDS,
    NO_WINDOW,
    TOO_LONG,
    TOO_SHORT,
    TRANSITION,
    TRIMMED,
)

IN_CLIPS = "in clips"
GREEN, PALE = "#2e9e5b", "#9bd3b2"

PLAIN = {
    IN_CLIPS: GREEN,
    CONTEXT: PALE,
    # shots that a filter refused
    "too_dark": "#4a5a8c", "too_bright": "#d9bd4a", "low_contrast": "#a9a08f", "blurred": "#6fa8c7",
    "frozen": "#4fb3bf", "static": "#7d8f69", "shaky": "#c98b3b", "flicker": "#d96f9f",
    "corrupt": "#b03a2e", "title_over_picture": "#8e5bb5", "unaesthetic": "#a9746e", "duplicate": "#3f7d8c",
    # shots that fit no sequence
    TRANSITION: "#656b75", NO_WINDOW: "#cdd1d6", TOO_SHORT: "#efb09a", TOO_LONG: "#8a5340",
    MIXED_FIELDS: "#24272b",
}  # fmt: skip
"""Use of film time -> colour."""
STRIPED = {
    TRIMMED: (GREEN, PALE),
    # sequences that were rejected
    "subtitles_over_subject": ("#b0574a", "#d9a79f"), "logo_over_subject": ("#b8922b", "#e0cb90"),
    "text_over_picture": ("#8e5bb5", "#c9b0dd"), "crop_too_small": ("#5b6b8c", "#aab4c8"),
    "subjects_do_not_fit": ("#3f7d8c", "#9cc3cc"), "no_recon_target": ("#8a6d4b", "#c9b79f"),
}  # fmt: skip
"""Use of film time -> the two colours of its stripes."""
OTHER = ("#7a5a8f", "#3d7f6b", "#a8577e", "#7c7a3d", "#4b74a8", "#a5642f")
"""Colours of what is not named above; which one follows from its name."""
FRAMES = (
    (SUBTITLE, "subtitle"),
    (TITLE, "title"),
    (LOGO, "logo"),
    (SCENE_TEXT, "text of the scene"),
)
"""Kind of text -> what the legend of the crop calls its frame."""


def style_class(use: str) -> str:
    """Style class of a use of film time, or of a reason."""
    return "use-" + re.sub(r"[^a-z0-9]+", "-", use.lower()).strip("-")


def paint(use: str) -> str:
    """CSS background of a use of film time."""
    if use in STRIPED:
        one, two = STRIPED[use]
        return f"repeating-linear-gradient(45deg, {one} 0 4px, {two} 4px 8px)"
    return PLAIN.get(use) or OTHER[zlib.crc32(use.encode()) % len(OTHER)]


def frame_legend(kinds: set[str]) -> list[tuple[str, str]]:
    """Colour and words of the frames that are drawn on a film's picture before the crop."""
    return [(hexadecimal(OVERLAY_COLOURS[kind]), words) for kind, words in FRAMES if kind in kinds]


def hexadecimal(colour: tuple[int, int, int]) -> str:
    """RGB as CSS writes it."""
    return "#{:02x}{:02x}{:02x}".format(*colour)
