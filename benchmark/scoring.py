"""What a metric is, and how metrics become scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from benchmark.aggregate import MetricScore, Scores, StoryScore
from benchmark.features import FeatureStore, Group, StoryFeatures
from benchmark.stories import Story

COSINE = (-1.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric.

    Attributes:
        name: in tables and files.
        title: for people.
        function: gives the groups of a story.
        options: keyword arguments of the function.
        needs: kinds of features.
        group: what a group is: scene, shot, story or character.
        unit: of the numbers.
        higher_is_better: None where neither is.
        bounds: smallest and largest possible value.
        column: `paper: column` of which this is a reading; empty if of none.
        source: where the definition is from, and what it leaves open.
    """

    name: str
    title: str
    function: Callable[..., list[Group]]
    options: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...]
    group: str
    unit: str = "cosine"
    higher_is_better: bool | None = True
    bounds: tuple[float, float] = COSINE
    column: str = ""
    source: str

    def groups(self, view: StoryFeatures) -> list[Group]:
        """The groups of a story."""
        return self.function(view, **self.options)

    def with_options(self, **changes: Any) -> Metric:
        """The same metric with other options.

        Raises:
            ValueError: it has no such option.
        """
        if unknown := sorted(changes.keys() - self.options.keys()):
            raise ValueError(f"{self.name} has no option {', '.join(unknown)}")
        return replace(self, options={**self.options, **changes})


def missing_kinds(metric: Metric, store: FeatureStore) -> list[str]:
    """Kinds that a metric needs and a store has none of."""
    return sorted(set(metric.needs) - store.kinds())


def score(
    metrics: Iterable[Metric],
    stories: Mapping[str, Story],
    store: FeatureStore,
    *,
    recipe: str,
    strict: bool = False,
) -> Scores:
    """All metrics on all stories of one method.

    Args:
        metrics: rows of `METRICS`, or changed ones.
        stories: by key.
        store: features of the method's videos.
        recipe: from `benchmark.presets.recipe`.
        strict: how missing shots are read, see `StoryFeatures`.

    Returns:
        The scores. Metrics that need a kind of feature of which the store has none are named with the reason;
        they are undefined on every story.
    """
    views = [StoryFeatures(stories[key], store, strict) for key in sorted(stories)]
    found, unavailable = {}, {}
    for metric in metrics:
        if lacking := missing_kinds(metric, store):
            unavailable[metric.name] = f"needs {', '.join(lacking)}"
        found[metric.name] = MetricScore({v.story.key: StoryScore.of(metric.groups(v)) for v in views})
    return Scores(recipe, found, unavailable)
