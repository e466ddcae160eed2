"""What a user sets for `memento train`, checked by name and type."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from curation.config import SettingsError, build, merge, parse_yaml, suggestion

if TYPE_CHECKING:
    from memento_model.training.config import TrainConfig
    from pipelines.train_command import Order


def parse_settings(items: Iterable[str]) -> dict[str, Any]:
    """`field=value` items, `optim.lr=1e-4` or `steps=200`; values are YAML.

    Raises:
        SettingsError: an item has another form.
    """
    made: dict[str, Any] = {}
    for item in items:
        name, equals, text = item.partition("=")
        path = name.split(".")
        if not equals or not all(path):
            raise SettingsError(f"--set {item}: expected field=value, e.g. optim.lr=1e-4 or steps=200")
        value = _number(parse_yaml(text, f"--set {item}"))
        for part in reversed(path):
            value = {part: value}
        made = merge(made, value)
    return made


def _number(value: Any) -> Any:
    """YAML reads 1e-4 as text; people mean a number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def fitted(recipe: TrainConfig, memory: str | None) -> TrainConfig:
    """The recipe as it fits a named machine.

    Raises:
        SettingsError: no such machine, or nothing makes it fit.
    """
    from memento_model.training.budget import MACHINES, advice, fits

    if memory is None:
        return recipe
    machines = {machine.name: machine for machine in MACHINES}
    if memory not in machines:
        raise SettingsError(
            f"--memory {memory}: there are {', '.join(machines)}{suggestion(memory, machines)}"
        )
    made, needs = advice(recipe, machines[memory])
    if not fits(needs, machines[memory]):
        raise SettingsError(
            f"--memory {memory}: {recipe.name} needs about {needs.total:.0f} GiB on each device at the least "
            "(see --plan)"
        )
    return made


def configs(order: Order) -> list[TrainConfig]:
    """The runs that are asked for: one for each expert.

    Raises:
        SettingsError: no such recipe, a field that does not exist, or a wrong value.
    """
    from memento_model.training.config import TrainConfig
    from memento_model.training.recipes import RECIPES, both_experts, smaller

    if order.recipe not in RECIPES:
        raise SettingsError(f"recipe {order.recipe!r} does not exist{suggestion(order.recipe, RECIPES)}")
    if order.resume not in ("auto", "none"):
        raise SettingsError(f"--resume {order.resume}: there are auto, none")
    recipe = RECIPES[order.recipe]()
    recipe = smaller(recipe) if order.small else recipe
    asked = parse_settings(order.settings)
    if order.dataset is not None:
        asked = merge(asked, {"data": {"dataset": str(order.dataset)}})
    if order.output is not None:
        asked["output"] = str(order.output)
    experts: tuple[Any, ...] = both_experts(recipe.name) or (recipe.expert,)
    if order.expert is not None or "expert" in asked:
        chosen = order.expert or asked.pop("expert")
        experts = ("high", "low") if chosen == "both" else (chosen,)
    recipe = fitted(recipe, order.memory)
    made = merge(dataclasses.asdict(recipe), asked)
    return [build(TrainConfig, {**made, "expert": expert}, "settings") for expert in experts]
