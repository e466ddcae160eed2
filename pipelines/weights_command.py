"""`memento weights`: the tables of models, and fetching one of them."""

from __future__ import annotations

from rich.console import Console
from rich.table import Column, Table

from benchmark.encoders import weights as encoders
from curation import repositories, weights
from curation.config import SettingsError, suggestion
from memento_model.checkpoints import released


def show() -> None:
    """Print the tables: what each model is, its licence, and where it lies on this machine."""
    table = Table(Column("name", no_wrap=True), "what", "from", "licence", "here")
    for name, entry in weights.TABLE.items():
        found = weights.find(name)
        table.add_row(
            name,
            entry.what,
            entry.repository,
            entry.licence,
            str(found) if found else f"memento weights pull {name}",
        )
    for name, model in repositories.TABLE.items():
        if name in encoders.TABLE:
            continue  # the same file
        folder = repositories.find(name)
        table.add_row(
            name,
            f"{model.what} ({model.size_gb:.0f} GB)",
            model.repository,
            model.licence,
            str(folder) if folder else f"memento weights pull {name}",
        )
    for name, one in released.TABLE.items():
        folder = released.find(name)
        table.add_row(
            name,
            f"{one.what} ({one.size_gb:g} GB)",
            one.repository,
            one.licence,
            str(folder) if folder else released.command(name),
        )
    for name, encoder in encoders.TABLE.items():
        place = encoders.here(name)
        table.add_row(
            name,
            f"{encoder.what} ({encoder.size_gb:g} GB)",
            encoder.files[0].repository,
            encoder.licence,
            str(place) if place else encoders.command(name),
        )
    Console().print(table)


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
    Console().print(f"{name}: {place}", highlight=False)
