"""Named ways to pack shots into sequences: settings of the stage `sequences`.

The paper says two things about its data that cannot both hold: sequences of 30-60 s whose shots all last
longer than 5 s (its section on data), and a published set of 6-16 clips with a mean of 9.95 clips and 45.9 s
per sequence (its appendix), which is 4.6 s per shot. Both are here, and `bridged` for films cut faster
than either allows.
"""

from __future__ import annotations

from typing import Any

from curation.config import SettingsError, suggestion

PRESETS: dict[str, dict[str, Any]] = {
    "paper-text": {
        "min_window_s": 30.0,
        "max_window_s": 60.0,
        "min_shot_s": 5.0,
        "min_clips": 2,
        "max_clips": 12,
        "max_context_share": 0.0,
    },
    "paper-table": {
        "min_window_s": 30.0,
        "max_window_s": 65.0,
        "min_shot_s": 2.0,
        "min_clips": 6,
        "max_clips": 16,
        "max_context_share": 0.0,
    },
    "bridged": {
        "min_window_s": 30.0,
        "max_window_s": 65.0,
        "min_shot_s": 2.0,
        "min_clips": 2,
        "max_clips": 16,
        "max_context_share": 0.2,
    },
}
"""Preset name -> settings that replace the defaults of `curation.stages.sequences.Sequences`."""

SUMMARIES: dict[str, str] = {
    "paper-text": "30-60 s, every shot at least 5 s: what the paper's text says",
    "paper-table": "30-65 s, 6-16 clips of at least 2 s: what the paper's statistics imply",
    "bridged": "like paper-table, but from 2 clips, and shorter shots may lie inside as context that is not "
    "exported (at most a fifth of the seconds)",
}
"""One line per preset, for help texts and the documentation."""


def settings_of(preset: str) -> dict[str, Any]:
    """The settings of a preset.

    Raises:
        SettingsError: there is no preset of that name.
    """
    if preset not in PRESETS:
        raise SettingsError(f"preset {preset!r} does not exist{suggestion(preset, PRESETS)}")
    return PRESETS[preset]
