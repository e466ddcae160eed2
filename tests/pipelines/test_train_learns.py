"""Trained on the demo set, the queries come to pick frames that show the subject to be reconstructed."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("peft")

from memento_model.training.recipes import debug
from perf.train_recall import GOAL, Truth, learn, runs


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("expert", ["high", "low"])
def test_the_picked_memory_comes_to_show_the_subject(expert, demo_set, demo_film, tmp_path, record_property):
    recipe = debug()
    dataset = demo_set.job.output
    (config,) = (
        made
        for made in runs(dataset, tmp_path, [recipe.seed], [recipe.compat.query_gradient])
        if made.expert == expert
    )
    before, after = learn(config, Truth(dataset, demo_film.truth), recipe.optim.query_steps)
    record_property("before", str(before))
    record_property("after", str(after))
    print(expert, "before:", before, "after:", after)  # noqa: T201 - shown with -s
    assert before.global_picks < 0.7
    assert after.by_chance < 0.6
    assert after.global_picks >= GOAL
    assert after.local_picks >= GOAL
