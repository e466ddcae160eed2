"""`memento weights`: the tables of models, and fetching one of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from benchmark.encoders import weights as encoders
from curation import repositories, weights
from curation.config import SettingsError, suggestion
from memento_model.checkpoints import released
from pipelines.terminal import make_console, print_line

ROOMY = 160
"""Columns from which every fact about a model has a column of its own."""


@dataclass(frozen=True)
class Model:
    """A line of the list: what a model is, whose it is, and where it lies on this machine (None: nowhere)."""

    name: str
    what: str
    repository: str
    licence: str
    place: Path | None


def models() -> list[Model]:
    """Every model of the four tables, each once."""
    found = [
        Model(name, one.what, one.repository, one.licence, weights.find(name))
        for name, one in weights.TABLE.items()
    ]
    found += [
        Model(
            name, _sized(one.what, f"{one.size_gb:.0f}"), one.repository, one.licence, repositories.find(name)
        )
        for name, one in repositories.TABLE.items()
        if name not in encoders.TABLE  # the same file
    ]
    found += [
        Model(name, _sized(one.what, f"{one.size_gb:g}"), one.repository, one.licence, released.find(name))
        for name, one in released.TABLE.items()
    ]
    for name, encoder in encoders.TABLE.items():
        what, place = _sized(encoder.what, f"{encoder.size_gb:g}"), encoders.here(name)
        file = Path(str(place)) if place else None
        found.append(Model(name, what, encoder.files[0].repository, encoder.licence, file))
    return found


def _sized(what: str, size_gb: str) -> str:
    return f"{what} ({size_gb} GB)"


def show() -> None:
    """Print what each model is, its source and licence, and where it lies on this machine."""
    console, found = make_console(), models()
    console.print(models_table(found, roomy=console.width >= ROOMY))
    for one in found:
        if one.place is not None:
            print_line(console, f"{one.name}: {one.place}")
    print_line(console, "Fetch one with: memento weights pull NAME")


def models_table(found: list[Model], *, roomy: bool) -> Table:
    """A row per model; where there is not much room, source and licence stand below what it is."""
    table = Table()
    table.add_column("name", no_wrap=True)
    for column in ("what", "from", "licence") if roomy else ("what, from, licence",):
        table.add_column(column, overflow="fold")
    table.add_column("here", no_wrap=True)
    for one in found:
        stacked = f"{one.what}\n{one.repository}, {one.licence}"
        facts = (one.what, one.repository, one.licence) if roomy else (stacked,)
        table.add_row(one.name, *map(Text, facts), "yes" if one.place else "-", end_section=not roomy)
    return table


def pull(name: str) -> None:
    """Download one model: a single file and check its hash, or a whole repository.

    Args:
        name: in one of the tables, or any `owner/name` of the hub; a repository's commit, tag or branch may
            follow after `@`.

    Raises:
        SettingsError: there is no model of that name.
    """
    if name in weights.TABLE:
        place = weights.pull(name)
    elif name in released.TABLE:
        place = released.pull(name)
    elif name in encoders.TABLE:
        place = encoders.pull(name)
    else:
        model, _, revision = name.partition("@")
        if repositories.name_of(model) is None and "/" not in model:
            names = [*weights.TABLE, *repositories.TABLE, *released.TABLE, *encoders.TABLE]
            raise SettingsError(f"no model is called {model!r}{suggestion(model, names)}")
        place = repositories.pull(model, revision)
    print_line(make_console(), f"{name}: {place}")
