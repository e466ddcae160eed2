import numpy as np
import pytest

from curation.shots.hashes import hash_pictures, perceptual_hashes, picture_edges
from curation.shots.scores import (
    align,
    exposure,
    film_bars,
    flicker,
    freeze_share,
    lagged_pairs,
    median,
    motion,
    shake,
    share,
)

FPS = 24


def times(count, fps=FPS):
    return np.arange(count) / fps


def scene(seed=0, size=(900, 1600)):
    """A large picture with structure at all scales, 0..255."""
    import cv2

    rng = np.random.default_rng(seed)
    total = np.zeros(size)
    for cells in (4, 8, 16, 32):
        noise = rng.normal(size=(cells * 9 // 16 + 2, cells))
        total += cv2.resize(noise, size[::-1], interpolation=cv2.INTER_CUBIC) / cells**0.5
    total -= total.min()
    return 255 * total / total.max()


def view(picture, top=100.0, left=200.0, size=(576, 1024)):
    """The thumbnail of a window into the picture."""
    import cv2

    window = cv2.getRectSubPix(
        picture.astype(np.float32), size[::-1], (left + size[1] / 2, top + size[0] / 2)
    )
    return cv2.resize(window, (32, 18), interpolation=cv2.INTER_AREA)


def thumbs_of(pictures):
    return np.clip(np.rint(pictures), 0, 255).astype(np.uint8)


def test_exposure_tells_dark_from_black():
    luma = np.array([[10, 5, 20], [30, 15, 60]], np.float32)

    scores = exposure(luma)

    assert scores == {
        "luma_mean": 20.0,
        "luma_p90": 40.0,
        "contrast": 10.0,
        "dark_share": 0.5,
        "bright_share": 0.0,
    }
    assert exposure(np.full((2, 3), 240, np.float32))["bright_share"] == 1.0
    assert set(exposure(np.zeros((0, 3))).values()) == {None}


def test_flicker_is_blind_to_fades():
    fade = np.linspace(0, 200, 50)
    strobe = np.tile([100.0, 140.0], 25)

    assert flicker(fade) == pytest.approx(0, abs=1e-9)
    assert flicker(strobe) == pytest.approx(80)
    assert flicker(fade[:2]) is None


def test_nothing_measured_is_none():
    empty = np.zeros((0, 18, 32), np.uint8)

    assert median(np.zeros(0)) is None
    assert share(np.zeros(0, bool)) is None
    assert motion(times(0), empty) is None
    assert shake(times(0), empty) is None
    assert freeze_share(np.array([0.0]), empty, np.zeros(0)) is None


class TestFreeze:
    def moving(self, count, seed=0):
        return np.random.default_rng(seed).integers(0, 256, (count, 18, 32), dtype=np.uint8)

    def test_share_of_the_repeated_frames(self):
        start, still = self.moving(24), np.repeat(self.moving(1, 1), 48, axis=0)
        change = np.concatenate([np.full(25, 20.0), np.full(47, 0.004)])

        frozen = freeze_share(times(73), np.concatenate([start, still]), change)

        assert frozen == pytest.approx(48 / 72)

    def test_a_redrawn_key_frame_does_not_end_it(self):
        still = np.repeat(self.moving(1), 48, axis=0)
        change = np.full(48, 0.004)
        change[24] = 0.5

        assert freeze_share(times(49), still, change) == 1.0

    def test_grain_is_not_frozen(self):
        still = np.repeat(self.moving(1), 48, axis=0)

        assert freeze_share(times(49), still, np.full(48, 0.09)) == 0.0

    def test_a_slow_fade_is_not_frozen(self):
        fade = thumbs_of(np.linspace(100, 160, 96)[:, None, None] * np.ones((18, 32)))

        assert freeze_share(times(97), fade, np.full(96, 0.0)) == 0.0

    def test_less_than_half_a_second_is_a_held_frame(self):
        change = np.full(48, 20.0)
        change[10:20] = 0.0
        thumbs = self.moving(48)
        thumbs[9:20] = thumbs[9]

        assert freeze_share(times(49), thumbs, change) == 0.0
        assert freeze_share(times(49, fps=12), thumbs, change) == pytest.approx(11 / 48)


class TestMotion:
    @pytest.mark.parametrize("shift", [(0, 0), (6, -9), (13, 40), (-70, 100), (0, 260)])
    def test_align_finds_the_translation(self, shift):
        picture = scene()
        before, after = view(picture), view(picture, 100 - shift[0], 200 - shift[1])

        found = align(thumbs_of(before)[None], thumbs_of(after)[None])

        assert found.shift[0] == pytest.approx(np.array(shift) / 32, abs=0.25)
        assert found.residual[0] < 2.5 < np.abs(before - after).mean() or shift in [(0, 0), (6, -9)]

    def test_a_still_with_grain_does_not_move(self):
        rng = np.random.default_rng(0)
        still = view(scene())
        noisy = thumbs_of(still + rng.normal(0, 0.25, (72, 18, 32)))

        assert motion(times(72), noisy) < 0.02

    def test_an_object_moves_and_a_pan_does_not(self):
        picture = scene()
        pan = np.stack([view(picture, 100, 100 + 2 * i) for i in range(72)])
        still = np.repeat(view(picture)[None], 72, axis=0)
        ball = still.copy()
        for i in range(72):
            ball[i, 6:10, i % 28 : i % 28 + 4] = 255

        moving, panning = motion(times(72), thumbs_of(ball)), motion(times(72), thumbs_of(pan))

        assert moving > 10
        assert panning < moving / 4
        assert motion(times(72), thumbs_of(still)) == 0.0

    def test_speed_counts_per_second(self):
        picture = scene()
        thumbs = thumbs_of([view(picture) * (1 - 0.5 * abs((i % 12) - 6) / 6) for i in range(48)])

        slow, fast = motion(times(48, 12), thumbs), motion(times(48, 24), thumbs)

        assert fast == pytest.approx(2 * slow, rel=0.6)

    def test_pairs_follow_one_another(self):
        irregular = np.array([0.0, 0.1, 0.3, 0.31, 0.55, 1.5])

        pairs = lagged_pairs(irregular, 0.25)

        assert pairs.tolist() == [[0, 2], [2, 4], [4, 5]]

    def test_shake_is_tremble_not_travel(self):
        picture, rng = scene(), np.random.default_rng(3)
        jitter = rng.normal(0, 24, (72, 2))
        smooth = thumbs_of([view(picture, 100, 60 + 5 * i) for i in range(72)])
        shaky = thumbs_of([view(picture, 100 + dy, 200 + dx) for dy, dx in jitter])

        assert shake(times(72), smooth) < 0.003
        # Gaussian jitter of 24 pixels: the median distance is 1.18 of that, in 1024 pixels of width.
        assert shake(times(72), shaky) == pytest.approx(1.18 * 24 / 1024, rel=0.35)

    def test_too_short_to_shake(self):
        assert shake(times(10), np.zeros((10, 18, 32), np.uint8)) is None


class TestBars:
    size = (480, 848)

    def measure(self, *shots):
        """Bars of each shot from measurements per shot: lists of (bars, mean luma)."""
        bars = np.array([b for shot in shots for b, _ in shot], np.int16).reshape(-1, 4)
        luma = np.array([v for shot in shots for _, v in shot], np.float32)
        key_shot = np.repeat(np.arange(len(shots)), [len(s) for s in shots])
        return film_bars(bars, luma, key_shot, len(shots), self.size)

    def test_noise_at_the_edge_does_not_hide_a_letterbox(self):
        first = [((56, 56, 0, 0), 90), ((56, 18, 0, 0), 100), ((56, 0, 0, 0), 100)]
        second = [((55, 54, 0, 0), 80), ((48, 0, 0, 0), 80)]
        third = [((56, 55, 0, 0), 80)]

        assert self.measure(first, second, third) == [(56, 55, 0, 0)] * 3

    def test_a_dark_edge_is_no_bar(self):
        hangar = [((11, 6, 92, 88), 10), ((3, 6, 72, 88), 10)]
        bright = [((0, 0, 82, 71), 12), ((0, 0, 0, 0), 90)]
        other = [((0, 0, 96, 46), 17), ((0, 0, 123, 53), 14)]

        assert self.measure(hangar, bright, other) == [(0, 0, 0, 0)] * 3

    def test_archive_shots_keep_their_pillars(self):
        wide, old = [((0, 0, 0, 0), 90)] * 2, [((0, 0, 106, 106), 90)] * 2

        assert self.measure(wide, wide, old, wide, old, wide) == [
            *[(0, 0, 0, 0)] * 2,
            (0, 0, 106, 106),
            (0, 0, 0, 0),
            (0, 0, 106, 106),
            (0, 0, 0, 0),
        ]

    def test_black_pictures_say_nothing(self):
        black = [((480, 480, 848, 848), 0)]
        boxed = [((58, 58, 0, 0), 90)]

        assert self.measure(black) == [None]
        assert self.measure([]) == [None]
        assert self.measure(black, boxed, boxed) == [(58, 58, 0, 0)] * 3


class TestHashes:
    def bits_apart(self, one, other):
        return [(int(a, 16) ^ int(b, 16)).bit_count() for a, b in zip(one, other, strict=True)]

    def test_a_letterboxed_copy_has_the_hash_of_the_open_one(self):
        picture = scene()
        open_copy = view(picture, size=(440, 1024))
        boxed = np.zeros((576, 1024))
        import cv2

        boxed[68:508] = cv2.getRectSubPix(picture.astype(np.float32), (1024, 440), (712, 320))
        boxed = cv2.resize(boxed, (32, 18), interpolation=cv2.INTER_AREA)

        one = perceptual_hashes(open_copy[None], picture_edges(None, (440, 1024)))
        same = perceptual_hashes(boxed[None], picture_edges((68, 68, 0, 0), (576, 1024)))
        ignored = perceptual_hashes(boxed[None], picture_edges(None, (576, 1024)))

        assert self.bits_apart(one, same)[0] <= 8
        assert self.bits_apart(one, ignored)[0] > 12

    def test_exposure_and_subtitles_leave_it_alone(self):
        thumb = view(scene())
        subtitled = thumb.copy()
        subtitled[15:17, 8:24] = 255

        same = perceptual_hashes(np.stack([thumb, 0.7 * thumb + 20, subtitled]), (0, 1, 0, 1))

        assert self.bits_apart(same[:1] * 2, same[1:]) == [0, 0]
        assert all(len(h) == 32 for h in same)

    def test_other_pictures_are_far(self):
        hashes = perceptual_hashes(np.stack([view(scene(s)) for s in range(12)]), (0, 1, 0, 1))

        assert min(self.bits_apart(hashes[:-1], hashes[1:])) > 30

    def test_flat_pictures_have_none(self):
        flat = np.full((1, 18, 32), 16.0)

        assert perceptual_hashes(flat, (0, 1, 0, 1)) == [None]
        assert perceptual_hashes(flat[:0], (0, 1, 0, 1)) == []

    def test_pictures_are_counted_from_both_cuts(self):
        ramp = np.arange(48, dtype=np.uint8)[:, None, None] * np.ones((18, 32), np.uint8)

        from_start, from_end = hash_pictures(times(48), 2.0, ramp)
        tail_start, tail_end = hash_pictures(times(48)[13:], 2.0, ramp[13:])

        assert from_start[:, 0, 0] == pytest.approx([6, 18, 30, 42])
        assert from_end[:, 0, 0] == pytest.approx([42, 30, 18, 6])
        # An excerpt that begins inside the shot shares the pictures before its end.
        assert tail_end[:, 0, 0] == pytest.approx(from_end[:3, 0, 0])
        assert tail_start[0, 0, 0] != from_start[0, 0, 0]

    def test_long_and_short_and_slow_shots(self):
        many = np.zeros((24 * 60, 18, 32), np.uint8)

        assert [len(p) for p in hash_pictures(times(24 * 60), 60.0, many)] == [16, 16]
        assert [len(p) for p in hash_pictures(times(5), 5 / 24, many[:5])] == [0, 0]
        slow_start, _ = hash_pictures(times(3, fps=1), 3.0, many[:3])
        assert len(slow_start) == 6

    def test_nonsense_bars_are_ignored(self):
        assert picture_edges((300, 300, 0, 0), (480, 848)) == (0.0, 1.0, 0.0, 1.0)
