"""Deterministic ids: from the content of the film and a span in its own integer time base."""

from __future__ import annotations


def film_id(sha256: str) -> str:
    """Id of a film from the hash of its bytes."""
    return f"f{sha256[:15]}"


def shot_id(film: str, start_pts: int, end_pts: int) -> str:
    """Id of a shot from its half-open span in ticks of the stream's time base."""
    return f"{film}-s{start_pts}-{end_pts}"


def sequence_id(film: str, start_pts: int, end_pts: int) -> str:
    """Id of a sequence from its half-open span in ticks of the stream's time base."""
    return f"{film}-q{start_pts}-{end_pts}"


def clip_id(sequence: str, clip_index: int) -> str:
    """Id of the exported file of one shot of a sequence."""
    return f"{sequence}-c{clip_index:02d}"


def subject_id(sequence: str, index: int) -> str:
    """Id of a recurring subject, numbered by order of appearance in its sequence."""
    return f"{sequence}-p{index:02d}"


def recon_id(sequence: str, index: int) -> str:
    """Id of a reconstruction target of a sequence."""
    return f"{sequence}-r{index:02d}"
