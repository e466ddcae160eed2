"""Publish a run: tables, clips, pictures, database, card and review page as one version, swapped in at once.

    <output>/versions/<digest>/   one whole published set; never changed in content once it is there
    <output>/current              symbolic link to one of them, replaced by a rename
    <output>/tables, clips, ...   symbolic links into `current`, made once

Readers see the set before or the set after. The version before is kept for those who are still reading it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curation.engine import store as kept
from curation.engine.stage import KEPT, Row, StopRun
from curation.engine.store import Store
from curation.publishing.card import write_card
from curation.publishing.database import FILE_NAME, write_database
from curation.publishing.parquet import sha256_of, write_tables
from curation.publishing.review import write_review
from curation.publishing.stills import lost_stills
from curation.publishing.summary import STATUSES, summarise
from curation.publishing.tables import VERDICT, World, gather, image_path, proof_path, video_path
from curation.schema import SCHEMA_VERSION

TOP_LEVEL = (FILE_NAME, "tables", "clips", "recon", "review", "README.md", "run.json")
DIGEST_DIGITS = 12


@dataclass(frozen=True)
class PublishReport:
    """What was published.

    Attributes:
        output: the dataset folder.
        version: name of the version in `versions`.
        digest: SHA-256 over tables, clips and target pictures; equal content, equal digest.
        changed: false if this very content was what readers had before.
        summary: what `run.json` says under `counts`.
        films: path, status, stage, reason and detail of every file found, as published.
    """

    output: Path
    version: str
    digest: str
    changed: bool
    summary: Row
    films: tuple[Row, ...]

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Films, shots and sequences by kept, rejected and failed."""
        shots = self.summary["shots"]
        rejected = shots["found"] - shots["usable"]
        return {
            "films": {status: self.summary["films"][status] for status in STATUSES},
            "shots": {"kept": shots["usable"], "rejected": rejected, "failed": 0},
            "sequences": {status: self.summary["sequences"][status] for status in STATUSES},
        }

    @property
    def paths(self) -> dict[str, Path]:
        """What a person would open next."""
        return {
            "dataset": self.output,
            "database": self.output / FILE_NAME,
            "review": self.output / "review" / "index.html",
            "card": self.output / "README.md",
        }


@dataclass(frozen=True)
class Media:
    """A file of the store, its place in the set, and its hash if it belongs to the content."""

    source: Path
    target: str
    sha256: str | None


def publish(
    outcome_tables: Mapping[str, Sequence[Row]], store: Store, output: Path, facts: Mapping[str, Any]
) -> PublishReport:
    """Write a version and make it the current one.

    Args:
        outcome_tables: rows by grain; `film` and `sequence` are used.
        store: where the artefacts lie.
        output: the dataset folder; made if missing.
        facts: what `run.json` shall hold besides counts. `dataset`, `preset` and `settings` also go into the
            card and the tables. Plain JSON values.

    Raises:
        StopRun: the disk is full, an artefact is missing, or `output` holds files of somebody else.
    """
    _check_output(output)
    world = gather(
        outcome_tables["film"],
        outcome_tables.get("sequence", ()),
        store,
        preset=facts.get("preset"),
        settings_hash=kept.digest(facts["settings"]) if "settings" in facts else None,
    )
    staging = output / "versions" / ".staging"
    try:
        for left in (output / "versions").glob(".*"):  # of a run that was killed
            shutil.rmtree(left, ignore_errors=True)
        return _publish(world, staging, output, facts)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StopRun(
                f"disk full: no space left under {output}; free some and run the same command again: "
                "finished work is kept, and the set published before is untouched"
            ) from error
        raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _publish(world: World, staging: Path, output: Path, facts: Mapping[str, Any]) -> PublishReport:
    write_tables(world, staging / "tables")
    files = list(media(world))
    for file in files:
        place(file.source, staging / file.target)
    for folder in ("clips", "recon", "review"):
        (staging / folder).mkdir(exist_ok=True)
    digest = content_digest(staging, files)
    counts = summarise(staging)
    write_card(staging, counts, facts)
    write_review(world, staging, counts, facts)
    write_database(staging / FILE_NAME, output.absolute())
    version = digest[:DIGEST_DIGITS]
    run = {**facts, "schema_version": SCHEMA_VERSION, "content_digest": digest, "counts": counts}
    (staging / "run.json").write_text(
        json.dumps(run, indent=2, ensure_ascii=False, sort_keys=True) + "\n", "utf-8"
    )
    install(staging, output / "versions" / version)
    changed = _swap(output, version)
    films = tuple({c: film[c] for c in ("path", *VERDICT)} for film in world.films)
    return PublishReport(output, version, digest, changed, counts, films)


def media(world: World) -> Iterator[Media]:
    """Files of the store that are published, in the order of the tables; of a lost sequence only stills."""
    path = world.store.path
    for sequence in world.sequences:
        name = sequence["sequence_id"]
        if sequence["status"] != KEPT:
            for still in lost_stills(sequence, world.store):
                yield Media(path(still["image"]), f"review/{still['src']}", None)
            continue
        for clip in sequence["clip_files"]:
            target = video_path(name, clip["clip_index"])
            yield Media(path(clip["video"]), target, clip["sha256"])
        for image in sequence["recon_images"] or []:
            target = image_path(image["recon_id"], image["image"])
            yield Media(path(image["image"]), target, image["sha256"])
        for proof in sequence.get("proof") or []:
            yield Media(path(proof["image"]), f"review/{proof_path(name, proof['image'])}", None)


def place(source: Path, target: Path) -> None:
    """Put a file of the store at `target`: as a hard link, or as a copy where links are not possible.

    Raises:
        StopRun: the store lost the file.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if not source.is_file():
        raise StopRun(
            f"{source} is missing: the folder .work was changed from outside; remove it and run the same "
            "command again"
        )
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EEXIST):
            raise
        shutil.copyfile(source, target)


def content_digest(staging: Path, files: Sequence[Media]) -> str:
    """SHA-256 over the names and hashes of tables, clips and target pictures."""
    lines = [f"{file.target} {file.sha256}" for file in files if file.sha256]
    lines += [f"tables/{p.name} {sha256_of(p)}" for p in (staging / "tables").iterdir()]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def install(staging: Path, version: Path) -> None:
    """Make `staging` the version of that name.

    A version that is there already has the same tables and media by its name, and perhaps readers: its files
    are replaced one by one, each at once, so that card, page and run.json are those of this run.
    """
    try:
        os.rename(staging, version)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    else:
        return
    fresh = {p.relative_to(staging) for p in staging.rglob("*") if p.is_file()}
    for path in sorted(fresh):
        (version / path).parent.mkdir(parents=True, exist_ok=True)
        os.replace(staging / path, version / path)
    for path in version.rglob("*"):
        if path.is_file() and path.relative_to(version) not in fresh:
            path.unlink()


def _check_output(output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    for name in (*TOP_LEVEL, "current"):
        path = output / name
        if path.exists() and not path.is_symlink():
            raise StopRun(
                f"{path} is in the way and was not written by this program; choose another output folder or "
                "move it"
            )


def _swap(output: Path, version: str) -> bool:
    """Make `version` the current one, drop those older than the one before; false if it was current."""
    current = output / "current"
    before = Path(os.readlink(current)).name if current.is_symlink() else None
    _link(Path("versions") / version, current)
    for name in TOP_LEVEL:
        if not (output / name).is_symlink():
            _link(Path("current") / name, output / name)
    if before == version:
        return False
    for old in (output / "versions").iterdir():
        if old.name not in (version, before):
            # Renamed first: a version under its own name is always whole.
            gone = old.with_name(f".gone-{uuid.uuid4().hex[:8]}")
            os.rename(old, gone)
            shutil.rmtree(gone, ignore_errors=True)
    return True


def _link(target: Path, path: Path) -> None:
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        os.symlink(target, part)
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        if error.errno in (errno.EPERM, errno.ENOTSUP):
            raise StopRun(f"{path.parent}: this file system has no symbolic links; choose another") from error
        raise
