"""Recipes: what they say, what the command line changes, what it refuses."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("peft")

from curation.config import SettingsError
from memento_model.config import ModelConfig
from memento_model.training.recipes import RECIPES, smaller
from memento_model.training.trainer import train_step
from pipelines.train_command import Order
from pipelines.train_settings import configs
from tests.memento_model.in_memory import run_of

ABLATION = ("ablation_baseline", "ablation_query", "ablation_recon", "ablation_disentangled")


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_whole_and_named_as_itself(name):
    made = RECIPES[name]()
    assert made.name == name
    if name != "debug":
        assert made.model == ModelConfig()
        assert (made.grid.num_frames, made.grid.height, made.grid.width) == (81, 480, 832)
        assert made.objective.identity_weight == 0.5
        assert made.optim.lr == 1e-5


def test_each_row_of_the_ablation_adds_one_part():
    parts = []
    for name in ABLATION:
        objective = RECIPES[name]().objective
        parts.append(
            (objective.learnable_query, objective.identity_probability > 0, objective.split_attention)
        )
    assert parts == [
        (False, False, False), (True, False, False), (True, True, False), (True, True, True),
    ]  # fmt: skip


@pytest.mark.parametrize("name", [*ABLATION, "storymem_480p"])
def test_every_row_runs_at_debug_size(name):
    import dataclasses

    from tests.memento_model import in_memory

    small = smaller(RECIPES[name]())
    tiny = dataclasses.replace(
        in_memory.config(),
        compat=small.compat,
        objective=dataclasses.replace(small.objective, bank_frames=3, last_frames=3),
    )
    run = run_of(tiny)
    done = train_step(run)
    assert done.losses[0][0].isfinite()
    assert (run.query is None) == (name in ("ablation_baseline", "storymem_480p"))


def test_overrides_are_typed():
    made = configs(
        Order(
            recipe="low_noise_480p",
            settings=["optim.lr=1e-4", "steps=7", "scale.shard=false", "data.where=num_shots >= 8"],
        )
    )
    assert len(made) == 1
    config = made[0]
    assert (config.optim.lr, config.steps, config.scale.shard) == (1e-4, 7, False)
    assert config.data.where == "num_shots >= 8"
    assert config.optim.betas == (0.9, 0.999)


def test_experts():
    assert [c.expert for c in configs(Order())] == ["high", "low"]
    assert [c.expert for c in configs(Order(expert="low"))] == ["low"]
    assert [c.expert for c in configs(Order(recipe="high_noise_480p"))] == ["high"]
    assert [c.expert for c in configs(Order(recipe="high_noise_480p", expert="both"))] == ["high", "low"]


@pytest.mark.parametrize(
    ("order", "said"),
    [
        (Order(recipe="debg"), "did you mean 'debug'"),
        (Order(settings=["optim.lrr=1"]), "unknown setting 'lrr'; did you mean 'lr'"),
        (Order(settings=["optm.lr=1"]), "unknown setting 'optm'; did you mean 'optim'"),
        (Order(settings=["steps"]), "expected field=value"),
        (Order(settings=["steps=many"]), "steps: .*valid integer"),
        (Order(settings=["steps=0"]), "steps"),
        (Order(settings=["scale.accumulate=0"]), "accumulate"),
        (Order(settings=["scale.dtype=fp8"]), "dtype"),
        (Order(expert="middle"), "expert"),
        (Order(resume="maybe"), "there are auto, none"),
    ],
)
def test_mistakes_are_named(order, said):
    with pytest.raises(SettingsError, match=said):
        configs(order)
