"""What changed between two evaluations: which numbers moved, by how much, and why that may be.

Numbers of different recipes do not compare. They are refused unless asked for, and then every row says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmark.aggregate import MACRO, RecipeMismatch
from benchmark.report.layout import shown
from benchmark.report.schema import Cell, MethodFact, MetricFact, Number, ReportData, StoryFact
from benchmark.statistics import compare
from benchmark.words import counted

if TYPE_CHECKING:
    pass

EXACT = 1e-12
SWAPPED = "swapped identities"
"""What the name of the control whose characters are exchanged ends with."""
OTHER_RECIPE = "other recipe: these numbers do not compare"
_ABOUT = {
    "viclip": ("viclip", "text"),
    "viclip_pixels": ("viclip",),
    "sampler": ("viclip",),
    "text_mode": ("text",),
    "prompts": ("text",),
    "scene_joiner": ("text",),
    "crop": ("viclip", "clip_b32", "dino_b14", "aes_"),
    "precision": ("viclip", "clip_b32", "dino_b14", "aes_", "text"),
    "aesthetic": ("aes_",),
    "aesthetic_stride": ("aes_",),
    "cut_penalty": ("stat_inner_cuts",),
}
"""Choice of a preset -> starts of the kinds of features that it decides; others touch every metric."""
_ENCODERS = {"viclip": ("viclip", "text"), "clip-b32": ("clip_b32",), "dinov2": ("dino_b14",)}
_ENCODERS |= {"clip-l14": ("aes_",), "aes-mlp": ("aes_mlp",), "aes-linear": ("aes_linear",)}


@dataclass(frozen=True, kw_only=True)
class Moved:
    """A cell that is in both evaluations.

    Attributes:
        shift: second - first, of the table's numbers; None if one of them does not exist.
        paired: shift on the stories that both have, with its interval.
        beyond: whether the second number lies outside the first one's interval.
        why: what differs and can have moved it; empty if nothing that is known did.
        note: `OTHER_RECIPE`, or empty.
    """

    metric: MetricFact
    method: str
    first: Cell
    second: Cell
    shift: Number
    paired: Cell
    beyond: bool
    why: list[str]
    note: str = ""

    @property
    def moved(self) -> bool:
        """Whether the number is another one."""
        return (self.first.value is None) != (self.second.value is None) or bool(
            self.shift is not None and abs(self.shift) > EXACT
        )


@dataclass(frozen=True, kw_only=True)
class Change:
    """Something that differs between two evaluations.

    Attributes:
        text: a line for people.
        kinds: starts of the kinds of features that it can move; empty for all.
        method: of one method only; empty for all.
        in_recipe: whether the recipe's hash depends on it.
        casting: it is about who is in which shot: groups by character, and the control that swaps two.
    """

    text: str
    kinds: tuple[str, ...] = ()
    method: str = ""
    in_recipe: bool = False
    casting: bool = False

    def touches(self, metric: MetricFact, method: str) -> bool:
        """Whether it can have moved a metric of a method."""
        if self.method not in ("", method):
            return False
        if self.casting:
            return metric.group == "character" or method.endswith(SWAPPED)
        return not self.kinds or any(kind.startswith(self.kinds) for kind in metric.needs)


@dataclass(frozen=True, kw_only=True)
class Diff:
    """Two evaluations.

    Attributes:
        cells: of methods and metrics that both have, moved or not.
        changes: all that differs, whether or not a number moved.
        only: methods and metrics that just one has, a line each.
        same_recipe: whether the numbers compare.
    """

    cells: list[Moved]
    changes: list[Change]
    only: list[str]
    same_recipe: bool

    @property
    def moved(self) -> list[Moved]:
        """The cells whose number is another one."""
        return [cell for cell in self.cells if cell.moved]


class NothingCommon(ValueError):
    """Two evaluations have no method in common; one line that says which each has."""


def diff(a: ReportData, b: ReportData, *, across_recipes: bool = False) -> Diff:
    """What changed from one evaluation to another.

    Args:
        a: the first.
        b: the second.
        across_recipes: compare numbers of different recipes too; each row then says that they do not compare.

    Raises:
        NothingCommon: no method is in both.
        RecipeMismatch: the recipes differ and `across_recipes` is not set.
    """
    _refuse_strangers(a, b)
    same = a.recipe == b.recipe
    changes = list(changes_between(a, b))
    if not same and not across_recipes:
        told = recipe_changes(changes)
        raise RecipeMismatch(
            f"the two were made by different recipes ({a.recipe[:12]}, {b.recipe[:12]}), so that their "
            f"numbers do not compare; what differs: {told}. Evaluate again with one "
            "preset, or ask for the comparison across recipes"
        )
    cells = []
    names = {metric.name for metric in b.metrics}
    others = {method.name: method for method in b.methods}
    for metric in a.metrics:
        for method in a.methods:
            if metric.name in names and method.name in others:
                cells.append(_moved(metric, method, others[method.name], (a.order, b.order), changes))
    noted = cells if same else [Moved(**{**vars(cell), "note": OTHER_RECIPE}) for cell in cells]
    return Diff(cells=noted, changes=changes, only=_only(a, b), same_recipe=same)


def recipe_changes(changes: Sequence[Change]) -> str:
    """What makes two recipes differ, in words."""
    told = "; ".join(change.text for change in changes if change.in_recipe)
    return told or "nothing that the reports record, so the versions of this package that made them"


def _refuse_strangers(a: ReportData, b: ReportData) -> None:
    first, second = ([method.name for method in data.compared()] for data in (a, b))
    if not {*first} & {*second}:
        raise NothingCommon(
            f"nothing compares: no method is in both reports; the first has {', '.join(first)}, the second "
            f"{', '.join(second)}. Evaluate them together (memento eval a=... b=...), or, if they are one "
            "method, under one name"
        )


def _moved(
    metric: MetricFact, a: MethodFact, b: MethodFact, orders: tuple[str, str], changes: Sequence[Change]
) -> Moved:
    nothing = Cell(value=None)
    first, second = (
        m.scores[metric.name].cells[order] if metric.name in m.scores else nothing
        for m, order in zip((a, b), orders, strict=True)
    )
    shift = None if first.value is None or second.value is None else second.value - first.value
    paired = nothing
    if shift is not None:
        values = [_per_story(m, metric.name) for m in (b, a)]
        value, low, high, stories = compare(values[0], values[1], count=2000).difference
        paired = Cell(value=_finite(value), low=_finite(low), high=_finite(high), stories=stories)
    inside = first.low is not None and first.high is not None and second.value is not None
    beyond = inside and not first.low <= second.value <= first.high  # type: ignore[operator]
    moved = shift is None or abs(shift) > EXACT
    why = [change.text for change in changes if moved and change.touches(metric, a.name)]
    return Moved(
        metric=metric,
        method=a.name,
        first=first,
        second=second,
        shift=shift,
        paired=paired,
        beyond=beyond,
        why=why,
    )


def _per_story(method: MethodFact, metric: str) -> dict[str, float]:
    values = method.scores[metric].per_story.get(MACRO, {})
    return {story: value for story, value in values.items() if value is not None}


def _finite(value: float) -> Number:
    return value if value == value else None


def changes_between(a: ReportData, b: ReportData) -> Iterator[Change]:
    """Everything that differs and could move a number, the recipe first."""
    if a.preset != b.preset:
        yield Change(text=f"preset {a.preset} became {b.preset}", in_recipe=True)
    for name in sorted({*a.choices, *b.choices}):
        old, new = (data.choices.get(name, ["absent"])[0] for data in (a, b))
        if old != new:
            kinds = _ABOUT.get(name, ())
            yield Change(
                text=f"choice {name}: {old!r} became {new!r}", kinds=kinds, in_recipe=name != "order"
            )
    olds = {metric.name: metric for metric in a.metrics}
    for metric in b.metrics:
        if metric.name in olds and olds[metric.name].options != metric.options:
            yield Change(
                text=f"options of {metric.name}: {olds[metric.name].options} became {metric.options}",
                kinds=tuple(metric.needs),
                in_recipe=True,
            )
    yield from _encoders(a, b)
    yield from _stories(a, b)
    others = {method.name: method for method in b.methods}
    for method in a.methods:
        if method.name in others:
            yield from _videos(method, others[method.name])
    for key in sorted({*a.environment, *b.environment}):
        old, new = a.environment.get(key, "absent"), b.environment.get(key, "absent")
        if old != new:
            yield Change(text=f"environment, {key}: {old} became {new}")


def _encoders(a: ReportData, b: ReportData) -> Iterator[Change]:
    olds, news = ({encoder.name: encoder for encoder in data.encoders} for data in (a, b))
    for name in sorted({*olds, *news}):
        old, new = olds.get(name), news.get(name)
        kinds = next((kinds for start, kinds in _ENCODERS.items() if name.startswith(start)), ())
        if old is None or new is None:
            told = f"encoder {name} is {'new' if old is None else 'gone'}"
            yield Change(text=told, kinds=kinds, in_recipe=True)
            continue
        if bool(old.missing) != bool(new.missing):
            told = f"encoder {name} is {'missing now' if new.missing else 'there now'}"
            yield Change(text=told, kinds=kinds, in_recipe=True)
            continue
        for what in ("sha256", "precision", "device", "random"):
            before, after = getattr(old, what), getattr(new, what)
            if before != after:
                shown_values = (str(v)[:12] or "none" for v in (before, after))
                told = " became ".join(shown_values)
                text = f"encoder {name}, {what}: {told}"
                yield Change(text=text, kinds=kinds, in_recipe=what != "device")


def _stories(a: ReportData, b: ReportData) -> Iterator[Change]:
    olds, news = ({story.key: story for story in data.stories} for data in (a, b))
    for told, keys in (("more", news.keys() - olds.keys()), ("fewer", olds.keys() - news.keys())):
        if keys:
            text = counted(len(keys), f"{told} story", f"{told} stories")
            yield Change(text=f"{text}: {_some(sorted(keys))}", in_recipe=True)
    other = [key for key in olds if key in news and olds[key].prompts_sha256 != news[key].prompts_sha256]
    if other:
        yield Change(text=f"prompts or cuts of the script differ in {_some(other)}", in_recipe=True)
    both = [(olds[key], news[key]) for key in olds if key in news and key not in other]
    if cast := [old.key for old, new in both if _cast(old) != _cast(new)]:
        pairs = dict.fromkeys((o.characters_from, n.characters_from) for o, n in both if _cast(o) != _cast(n))
        told = "; ".join(f"{before or 'tags'} became {after or 'tags'}" for before, after in pairs)
        text = f"who is in which shot differs in {_some(cast)} ({told})"
        yield Change(text=text, in_recipe=True, casting=True)
    yield from _tellers(both)


def _tellers(both: Sequence[tuple[StoryFact, StoryFact]]) -> Iterator[Change]:
    """Who says it is another, and what is said the same: no number depends on that."""
    same = [(old, new) for old, new in both if _cast(old) == _cast(new)]
    changed = [(old, new) for old, new in same if old.characters_from != new.characters_from]
    for before, after in dict.fromkeys((old.characters_from, new.characters_from) for old, new in changed):
        keys = [o.key for o, n in changed if (o.characters_from, n.characters_from) == (before, after)]
        told = f"{before or 'tags'} became {after or 'tags'}, which says the same"
        yield Change(text=f"who is in which shot of {_some(keys)}: {told}", casting=True)


def _cast(story: StoryFact) -> list[list[str]]:
    return [sorted(shot.characters) for shot in story.shots]


def _videos(a: MethodFact, b: MethodFact) -> Iterator[Change]:
    olds, news = _ids(a), _ids(b)
    changed = [shot for shot in olds if shot in news and olds[shot] != news[shot]]
    if changed:
        text = f"{counted(len(changed), f'video of {a.name}', f'videos of {a.name}')} changed"
        yield Change(text=f"{text}: {_some(changed)}", method=a.name)
    if gone := [shot for shot in olds if shot not in news]:
        text = counted(len(gone), f"shot of {a.name} is", f"shots of {a.name} are")
        yield Change(text=f"{text} missing now: {_some(gone)}", method=a.name)
    if new := [shot for shot in news if shot not in olds]:
        text = counted(len(new), f"shot of {a.name} is", f"shots of {a.name} are")
        yield Change(text=f"{text} new: {_some(new)}", method=a.name)


def _ids(method: MethodFact) -> dict[str, str]:
    return {
        f"{key}/{stem}": video.id for key, shots in method.videos.items() for stem, video in shots.items()
    }


def _some(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _only(a: ReportData, b: ReportData) -> list[str]:
    found = []
    for what, of in (
        ("method", lambda data: [m.name for m in data.methods]),
        ("metric", lambda data: [m.name for m in data.metrics]),
    ):
        for told, mine, other in (("first", of(a), of(b)), ("second", of(b), of(a))):
            found += [f"{what} {name} is only in the {told}" for name in mine if name not in other]
    return found


def lines(found: Diff) -> list[str]:
    """The difference in words: each cause once, and below it the numbers that it can have moved."""
    moved = found.moved
    told = [] if found.same_recipe else [OTHER_RECIPE]
    of = counted(len(found.cells), "number")
    told.append(f"{len(moved)} of {of} moved" if moved or found.changes else f"none of {of} moved")
    groups: dict[tuple[str, ...], list[Moved]] = {}
    for cell in moved:
        groups.setdefault(tuple(cell.why), []).append(cell)
    for why, cells in groups.items():
        told += ["", *([f"{'because' if len(why) == 1 else 'one of these:'} {why[0]}"] if why else [])]
        told += [f"              {text}" for text in why[1:]]
        told += [] if why else ["nothing that is recorded explains these:"]
        told += [f"    {_line(cell)}" for cell in cells]
    named = {text for why in groups for text in why}
    rest = [change.text for change in found.changes if change.text not in named]
    if rest:
        told += ["", "differs too, and can have moved none of these:", *(f"    {text}" for text in rest)]
    if not found.changes:
        told.append("nothing else differs")
    return [*told, *(["", *found.only] if found.only else [])]


def _line(cell: Moved) -> str:
    first, second = (shown(c.value, cell.metric) for c in (cell.first, cell.second))
    text = f"{cell.method}, {cell.metric.title} ({cell.metric.name}): {first} to {second}"
    if cell.shift is not None:
        known = cell.first is not None and cell.first.low is not None
        where = f"{'outside' if cell.beyond else 'inside'} the first interval" if known else "no interval"
        text += f" ({cell.shift:+.4f}, {where})"
    return text
