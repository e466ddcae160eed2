"""What is drawn for a sample: the promised rates, independence, and the same wherever it is drawn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from memento_model.training.config import ObjectiveConfig
from memento_model.training.samples import (
    Clip,
    Frame,
    ReconTarget,
    Sample,
    TrainSequence,
    draw,
    epoch_order,
    last_of,
    place_of,
    samples_of,
)

CONFIG = ObjectiveConfig()
NUM = 4000
LAST = (0, 2, 5, 8)
FLAGS = ("first_frame", "drop_prompt", "drop_local", "drop_global", "drop_identity", "self_forced")


def clip(i):
    return Clip(
        clip_id=f"c{i}", path=f"{i}.mp4", num_frames=40, caption="c", global_caption="g", start_frame=40 * i,
        candidates=tuple(range(0, 40, 4)),
    )  # fmt: skip


SEQUENCE = TrainSequence(
    sequence_id="s",
    film_id="f",
    clips=tuple(clip(i) for i in range(4)),
    targets=tuple(ReconTarget(recon_id=f"r{i}", clip=i, frame=i, caption="t") for i in (0, 1, 2)),
)
SAMPLE = Sample(sequence=SEQUENCE, target=3)


def drawn(config=CONFIG, sample=SAMPLE, num=NUM, seed=0):
    return [draw(sample, config, seed=seed, epoch=0, number=n, last_frames=LAST) for n in range(num)]


@pytest.fixture(scope="module")
def draws():
    return drawn(replace(CONFIG, self_forcing_probability=0.3))


def column(draws, name):
    return np.array([getattr(d, name) for d in draws], float)


def test_rates_are_those_of_the_settings(draws):
    wanted = {
        "first_frame": 0.5, "drop_prompt": 0.1, "drop_local": 0.1, "drop_global": 0.1, "drop_identity": 0.1,
        "self_forced": 0.3,
    }  # fmt: skip
    for name, share in wanted.items():
        error = np.sqrt(share * (1 - share) / NUM)
        assert abs(column(draws, name).mean() - share) < 4 * error, name
    skipped = np.array([not d.bank for d in draws])
    assert abs(skipped.mean() - 0.1) < 4 * np.sqrt(0.09 / NUM)
    with_identity = np.array([bool(d.identities) for d in draws])
    assert abs(with_identity.mean() - 0.9 * 0.8) < 4 * np.sqrt(0.72 * 0.28 / NUM)
    assert not (skipped & with_identity).any()


def test_drop_outs_and_levels_are_independent_of_each_other(draws):
    columns = [column(draws, name) for name in FLAGS] + [column(draws, "level")]
    correlation = np.corrcoef(columns) - np.eye(len(columns))
    assert np.abs(correlation).max() < 4.5 / np.sqrt(NUM)


def test_levels_are_uniform(draws):
    counts, _ = np.histogram(column(draws, "level"), bins=10, range=(0, 1))
    assert np.abs(counts - NUM / 10).max() < 4.5 * np.sqrt(NUM / 10)


def test_the_same_place_gives_the_same_draw_and_another_does_not():
    assert drawn(num=20) == drawn(num=20)
    assert drawn(num=20) != drawn(num=20, seed=1)
    one = draw(SAMPLE, CONFIG, seed=0, epoch=0, number=5, last_frames=LAST)
    assert one == drawn(num=6)[5]
    assert one != draw(SAMPLE, CONFIG, seed=0, epoch=1, number=5, last_frames=LAST)


def test_changing_one_probability_leaves_the_other_draws_alone():
    plain, other = (
        drawn(num=200),
        drawn(replace(CONFIG, drop_probability=0.0, self_forcing_probability=1.0), num=200),
    )
    for a, b in zip(plain, other, strict=True):
        assert (a.bank, a.last, a.identities, a.first_frame) == (b.bank, b.last, b.identities, b.first_frame)
        assert (a.level, a.noise_seed) == (b.level, b.noise_seed)
        assert not any((b.drop_prompt, b.drop_local, b.drop_global, b.drop_identity))
    skipping = drawn(replace(CONFIG, skip_prior_probability=1.0), num=200)
    assert [d.level for d in skipping] == [d.level for d in plain]
    assert all(not d.bank and not d.identities and d.last for d in skipping)


def test_the_bank_is_random_in_order_of_time_and_without_the_last_clip(draws):
    last = tuple(Frame(2, f) for f in LAST)
    banks = [d.bank for d in draws if d.bank]
    assert all(len(b) == CONFIG.bank_frames and len(set(b)) == len(b) for b in banks)
    assert all(list(b) == sorted(b, key=lambda f: (f.clip, f.frame)) for b in banks)
    assert all(d.last == last and d.candidates == (*d.bank, *last) for d in draws)
    seen = {f for b in banks for f in b}
    assert seen == {Frame(i, f) for i in (0, 1) for f in range(0, 40, 4)}


def test_identities_come_from_earlier_clips_each_as_often(draws):
    picked = [d.identities[0].recon_id for d in draws if d.identities]
    shares = [picked.count(name) / len(picked) for name in ("r0", "r1", "r2")]
    assert np.abs(np.array(shares) - 1 / 3).max() < 4 * np.sqrt(2 / 9 / len(picked))
    first = drawn(sample=replace(SAMPLE, target=1), num=300)
    assert {t.recon_id for d in first for t in d.identities} == {"r0"}
    assert all(d.bank == () for d in first)
    several = drawn(replace(CONFIG, num_identities=2), num=300)
    assert {len(d.identities) for d in several} == {0, 2}


def test_samples_are_all_clips_but_the_first():
    assert [s.sample_id for s in samples_of([SEQUENCE])] == ["s/1", "s/2", "s/3"]
    short = replace(clip(2), is_target=False)
    without = replace(SEQUENCE, clips=(*SEQUENCE.clips[:2], short, SEQUENCE.clips[3]))
    assert [s.target for s in samples_of([without])] == [1, 3]


def test_a_short_clip_before_the_target_gives_frames_of_its_own():
    assert last_of(clip(0), (0, 13, 26, 39)) == (0, 13, 26, 39)
    assert last_of(replace(clip(0), num_frames=39), (0, 13, 26, 39)) == (0, 12, 24, 36)
    assert last_of(replace(clip(0), num_frames=1), (0, 13, 26, 39)) == (0, 0, 0, 0)


def test_every_epoch_visits_every_sample_once_in_another_order():
    orders = [tuple(epoch_order(50, 3, epoch)) for epoch in range(3)]
    assert len(set(orders)) == 3
    assert all(sorted(order) == list(range(50)) for order in orders)


def test_a_count_is_enough_to_go_on_in_the_middle_of_an_epoch():
    whole = [place_of(n, 7, 3) for n in range(20)]
    assert [p.index for p in whole[7:14]] == list(epoch_order(7, 3, 1))
    assert [place_of(n, 7, 3) for n in range(9, 20)] == whole[9:]
    assert (whole[9].epoch, whole[9].number) == (1, 2)
