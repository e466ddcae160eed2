"""Films in, published dataset out. `STEPS` is THE list of stages, in order."""

from __future__ import annotations

import glob
import itertools
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curation.config import Dataset, SettingsError, configure, load, merge, suggestion
from curation.discover import discover
from curation.engine.explain import Forecast, explain
from curation.engine.runner import Outcome, Progress, run
from curation.engine.stage import Fold, Plan, Row, Stage, StopRun, plan
from curation.engine.store import Store, write_atomic
from curation.models.aesthetic_scorer import OFF
from curation.presets import settings_of
from curation.publishing.publish import PublishReport, publish
from curation.rows import SOURCE
from curation.stages.aesthetic import Aesthetic
from curation.stages.analyse import Analyse
from curation.stages.captions import Captions
from curation.stages.crop import Crop
from curation.stages.duplicates import Duplicates
from curation.stages.export import Export
from curation.stages.filters import Filters
from curation.stages.ingest import Identify, Ingest
from curation.stages.proof import Proof
from curation.stages.quality import Quality
from curation.stages.recon_targets import ReconTargets
from curation.stages.same_film import SameFilm
from curation.stages.scan import Scan, ToFilms, ToSegments
from curation.stages.sequences import Sequences, ToSequences
from curation.stages.shots import Shots
from curation.stages.subjects import Subjects
from curation.stages.titles import Titles
from pipelines import only_run as one_run
from pipelines.run_record import run_record

STEPS: tuple[type[Stage] | type[Fold], ...] = (
    Identify,  # film: hash of the bytes
    SameFilm,
    Ingest,  # film: probe, refuse by name, plan segments
    ToSegments,
    Scan,  # segment: the one cheap decode of everything
    Titles,  # segment: text in the scan's stills
    ToFilms,
    Shots,  # film: cuts and typed transitions
    Quality,  # film: scores per shot, from the scan
    Aesthetic,  # film: a model's score of a frame per shot, where asked for
    Duplicates,
    Filters,  # film: usable shots, by threshold; one of the copies of each
    Sequences,  # film: exact packing, coverage
    ToSequences,
    Analyse,  # sequence: one decode for text, subjects and tracks
    Crop,  # sequence: one crop without bars, subtitles, logos
    Subjects,  # sequence: tracks joined across cuts
    ReconTargets,  # sequence: two frames of the primary subject
    Export,  # sequence: encode once, verify
    Captions,  # sequence: story, shots, targets
    Proof,  # sequence: pictures for the review page
)


DEMO = "demo"
DEFAULT_CONFIG = Path("datasets.yaml")
BUILT_IN = {
    DEMO: Dataset(films=DEMO, licence="public domain and CC0 photographs (docs/demo.md)", preset="paper-text")
}
"""Datasets that need no entry in datasets.yaml; an entry of the same name replaces them."""


@dataclass(frozen=True)
class Job:
    """A resolved request.

    Attributes:
        name: of the dataset.
        sources: what to curate, as `curation.discover` takes it.
        licence: of the films.
        output: folder of the published set.
        preset: how shots are packed.
        plan: the configured steps, settled for this machine.
        notes: lines about what was settled.
        shares_name: whether other films could get the same folder, because it is called like these films.
    """

    name: str
    sources: tuple[str, ...]
    licence: str
    output: Path
    preset: str
    plan: Plan
    notes: tuple[str, ...] = ()
    shares_name: bool = False

    @property
    def renders_demo(self) -> bool:
        """Whether the film is the one that the project renders itself."""
        return self.name == DEMO and DEMO in self.sources

    @property
    def demo_path(self) -> Path:
        """Where the demo film lies or will lie."""
        return self.output / "source" / "demo_film.mp4"

    @property
    def store(self) -> Store:
        """Where results are kept: inside the output, so both share a filesystem."""
        return Store(self.output / ".work")


@dataclass(frozen=True)
class Report:
    """What a run did."""

    job: Job
    outcome: Outcome
    published: PublishReport
    record: Row = field(default_factory=dict)


def resolve(
    films: list[str],
    config: Path,
    *,
    output: Path | None = None,
    preset: str | None = None,
    settings: dict[str, dict[str, Any]] | None = None,
) -> Job:
    """Turn what a user typed into a job.

    Args:
        films: dataset names from `config`, or files, folders, globs, URLs.
        config: datasets.yaml; need not exist unless a dataset is named.
        output: overrides the dataset's.
        preset: overrides the dataset's.
        settings: by stage name; override everything else.

    Raises:
        SettingsError: a name or setting does not exist.
        StopRun, WeightsMissing, MissingExtra: a model or server that was asked for cannot be had.
    """
    datasets = BUILT_IN | (load(config) if config.exists() or config != DEFAULT_CONFIG else {})
    name, dataset, note = _dataset(films, datasets, config)
    chosen = preset or dataset.preset
    layers = merge({Sequences.name: settings_of(chosen)}, dataset.stages, settings or {})
    settled = [
        step.settled() if isinstance(step, Stage) else (step, "") for step in configure(STEPS, layers, name)
    ]
    sources = [dataset.films] if isinstance(dataset.films, str) else dataset.films
    return Job(
        name=name,
        sources=tuple(sources),
        licence=dataset.licence,
        output=Path(os.path.abspath(output or dataset.output or f"out/{name}")),
        preset=chosen,
        plan=plan([step for step, _ in settled], SOURCE),
        notes=(
            *(line for line in (note, *(line for _, line in settled)) if line),
            *_ignored([step for step, _ in settled]),
        ),
        shares_name=name not in datasets and output is None,
    )


def _ignored(steps: list[Stage | Fold]) -> Iterator[str]:
    """What was set and has no effect."""
    without = any(isinstance(step, Aesthetic) and step.model == OFF for step in steps)
    for step in steps:
        if isinstance(step, Filters) and step.min_aesthetic is not None and without:
            yield f"filters.min_aesthetic {step.min_aesthetic:g} has no effect: there are no aesthetic scores"


def _dataset(films: list[str], datasets: dict[str, Dataset], config: Path) -> tuple[str, Dataset, str]:
    """The name of the dataset, what it is, and one line where both could be taken for another one."""
    if len(films) == 1 and films[0] in datasets:
        name = films[0]
        there = f"{name} is the dataset of that name; for the file or folder here write ./{name}"
        return name, datasets[name], there if os.path.lexists(name) else ""
    looks_like_a_name = len(films) == 1 and not any(c in films[0] for c in "/*?.")
    if looks_like_a_name and not os.path.lexists(films[0]):
        raise SettingsError(
            f"{films[0]!r} is neither a file or folder nor a dataset of {config}"
            + suggestion(films[0], datasets)
        )
    own = name = dataset_name(films)
    while name in datasets:  # its folder is that of other films
        name += "_films"
    note = f"{own} is the name of another dataset: this one is called {name}" if name != own else ""
    return name, Dataset(films=films), note


def dataset_name(films: list[str]) -> str:
    """The name of films without an entry in datasets.yaml: of the file, the folder, or a pattern's folder.

    White space and characters that cannot be seen become single spaces: the name is that of a folder, too.
    """
    if len(films) != 1:
        return "films"
    source = Path(films[0]).expanduser()
    if "://" not in films[0] and os.path.lexists(source):
        path = Path(os.path.abspath(source))
        name = path.name if path.is_dir() else path.stem
    else:
        path = Path(films[0].rpartition("://")[2])
        parts = list(itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))
        name = Path(*parts).stem if parts else ""
    seen = "".join(c if c.isprintable() else " " for c in name)
    return " ".join(seen.split()).strip(".") or "films"


def prepare(job: Job) -> list[Row]:
    """List the films, claim the output folder, render the demo film if asked for.

    Raises:
        StopRun: the folder holds something else, or another run renders the demo film there.
        NothingFound: a source names no file.
    """
    rows = discover([s for s in job.sources if not job.renders_demo or s != DEMO], job.licence)
    claim(job, rows)
    if job.renders_demo:
        from curation.demo.film import TRUTH_NAME, render

        if not (job.demo_path.exists() and job.demo_path.with_name(TRUTH_NAME).exists()):
            with only_run(job):
                render(job.demo_path.parent)
        rows += discover([str(job.demo_path)], job.licence)
    return rows


def claim(job: Job, rows: Sequence[Row] = ()) -> None:
    """Make the output folder this dataset's, or refuse one of another dataset or of other films.

    Films are others if none of them, nor the folder or pattern that was named, was there in the run before.

    Raises:
        StopRun: the folder holds something else, or cannot be written.
    """
    marker, films = job.store.root / "dataset", job.store.root / "films"
    now = {s if "://" in s else os.path.abspath(os.path.expanduser(s)) for s in job.sources}
    now |= {row["path"] for row in rows}
    if marker.exists():
        owner = marker.read_text().strip()
        if owner != job.name:
            raise StopRun(
                f"{job.output}: holds the dataset {owner!r}, not {job.name!r}; "
                "choose another folder with --output"
            )
        before = json.loads(films.read_text()) if films.exists() else []
        if before and job.shares_name and now.isdisjoint(before):
            raise StopRun(
                f"{job.output}: holds the dataset of other films, {before[0]!r} and not {min(now)!r}; choose "
                f"another folder with --output, or name this one (--output {job.output}) to replace it"
            )
    elif job.output.exists() and any(job.output.iterdir()):
        raise StopRun(
            f"{job.output}: not empty and not made by this tool; choose another folder with --output"
        )
    try:
        write_atomic(films, json.dumps(sorted(now), indent=0))
        write_atomic(marker, job.name + "\n")
    except OSError as error:
        raise StopRun(f"{job.output}: cannot be written ({error.strerror})") from error


def only_run(job: Job) -> AbstractContextManager[None]:
    """Hold the output folder for this run."""
    return one_run.only_run(job.store.root, job.output)


def curate(
    job: Job, rows: list[Row], *, on_ray: bool = True, progress: Progress | None = None, place: str = ""
) -> Report:
    """Run the plan over the rows of `prepare` and publish.

    Raises:
        StopRun: with one line for the user; finished work is kept.
    """
    with only_run(job):
        return curate_locked(job, rows, on_ray=on_ray, progress=progress, place=place)


def curate_locked(
    job: Job, rows: list[Row], *, on_ray: bool, progress: Progress | None, place: str
) -> Report:
    """`curate` for a caller who holds `only_run` already, and began something costly under it."""
    started = time.perf_counter()
    job.store.clean()
    outcome = run(job.plan, rows, job.store, on_ray=on_ray, progress=progress)
    record = run_record(job, outcome, wall_s=time.perf_counter() - started, place=place)
    published = publish(outcome.tables, job.store, job.output, record)
    return Report(job, outcome, published, record)


def forecast(job: Job) -> list[Forecast]:
    """What `curate` would do and why. Nothing is written, not even the demo film."""
    sources = [s for s in job.sources if not job.renders_demo or s != DEMO]
    if job.renders_demo and job.demo_path.exists():
        sources.append(str(job.demo_path))
    return explain(job.plan, discover(sources, job.licence), job.store)
