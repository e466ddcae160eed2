"""Signals survive their file, and spans joined are the whole."""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise

import numpy as np
import pytest

from curation.shots import measure
from curation.shots.signals import Signals


def made(count: int, seed: int = 0) -> Signals:
    """Signals of random pictures, a key statistic every fifth frame."""
    rng = np.random.default_rng(seed)
    hsv = rng.integers(0, 180, (count, 36, 64, 3), np.uint8)
    keys = np.arange(0, count, 5)
    return Signals(
        pts=np.arange(count, dtype=np.int64) * 100,
        content=np.concatenate([np.full((1, 3), np.nan, np.float32), measure.content(hsv)]),
        luma=rng.random((count, 3), np.float32),
        thumbs_u8=rng.integers(0, 255, (count, 18, 32), np.uint8),
        corrupt=rng.random(count) < 0.1,
        key_frame=keys,
        sharpness=rng.random(len(keys), np.float32),
        bars=rng.integers(0, 9, (len(keys), 4)).astype(np.int16),
        key_slot=keys // 5,
        edges_hsv=hsv[[0, -1]],
    ), hsv


def part(whole: Signals, hsv: np.ndarray, start: int, end: int) -> Signals:
    """What a scan of [start, end) alone would leave."""
    cut = whole.span(start, end)
    content = cut.content.copy()
    content[0] = np.nan
    frames = np.arange(start, end)
    keys = np.unique(np.concatenate([[0], cut.key_frame]))  # its first frame always has a statistic
    known = {int(k): i for i, k in enumerate(whole.key_frame)}
    at = [known.get(int(frames[k]), 0) for k in keys]
    return Signals(
        pts=cut.pts,
        content=content,
        luma=cut.luma,
        thumbs_u8=cut.thumbs_u8,
        corrupt=cut.corrupt,
        key_frame=keys,
        sharpness=whole.sharpness[at],
        bars=whole.bars[at],
        key_slot=frames[keys] // 5,
        edges_hsv=hsv[[start, end - 1]],
    )


def assert_same(a: Signals, b: Signals) -> None:
    for field in fields(Signals):
        left, right = getattr(a, field.name), getattr(b, field.name)
        assert left.dtype == right.dtype, field.name
        np.testing.assert_array_equal(left, right, err_msg=field.name)


def test_a_file_holds_everything(tmp_path):
    whole, _ = made(23)
    whole.save(tmp_path / "signals.npz")
    assert_same(Signals.load(tmp_path / "signals.npz"), whole)


@pytest.mark.parametrize("seams", [(11,), (5, 10), (1, 2, 22), (7, 12, 13, 20)])
def test_joined_spans_are_the_whole(seams):
    whole, hsv = made(23)
    edges = [0, *seams, 23]
    parts = [part(whole, hsv, a, b) for a, b in pairwise(edges)]
    assert_same(Signals.concat(parts), whole)


def test_joining_passes_over_empty_spans():
    whole, hsv = made(23)
    empty = whole.span(4, 4)
    assert len(empty) == 0
    joined = Signals.concat([part(whole, hsv, 0, 9), empty, part(whole, hsv, 9, 23)])
    assert_same(joined, whole)


def test_an_excerpt_keeps_its_key_statistics():
    whole, _ = made(23)
    cut = whole.span(4, 16)
    assert len(cut) == 12
    np.testing.assert_array_equal(cut.key_frame, [1, 6, 11])
    np.testing.assert_array_equal(cut.sharpness, whole.sharpness[1:4])
    np.testing.assert_array_equal(cut.content, whole.content[4:16])
