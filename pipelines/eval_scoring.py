"""From what was found to an evaluation: features, scores, controls, audits."""

from __future__ import annotations

import functools
import platform
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from benchmark.characters import mapped
from benchmark.evaluation import Evaluation, MethodResult
from benchmark.presets import Preset, all_readings, recipe
from benchmark.prompts import StoryAudit, audit
from benchmark.scoring import score
from benchmark.stories import Story
from curation.config import SettingsError
from curation.engine.stage import StopRun
from pipelines.eval_inputs import Given, Order

if TYPE_CHECKING:
    from benchmark.encoders.load import EncoderSet
    from benchmark.extraction.run import Extracted

PACKAGES = (
    "memento-video", "numpy", "av", "opencv-python-headless", "torch", "torchvision", "open_clip_torch",
)  # fmt: skip


def find_encoders(order: Order, chosen: Preset) -> EncoderSet:
    """The encoders that are here.

    Raises:
        SettingsError: an encoder or device that does not exist, or a file with weights that cannot be used.
    """
    from benchmark.encoders.weights import NO_PACKAGE

    try:
        found = _factory(order, chosen)(device=order.device)
    except ValueError as error:
        raise SettingsError(str(error)) from error
    for text in order.weights:
        name, _, path = text.partition("=")
        if not Path(path).expanduser().exists():
            raise SettingsError(f"--weights {text}: no file at {path}; correct the path or leave it out")
        told = found.missing.get(name, "")
        if told and NO_PACKAGE not in told:  # a file that was named is a mistake, not a lack
            raise SettingsError(f"--weights {text}: {told}")
    return found


def _factory(order: Order, chosen: Preset) -> Any:
    from benchmark.encoders.load import encoders_for

    paths = {}
    for text in order.weights:
        name, equals, path = text.partition("=")
        if not equals:
            raise SettingsError(f"--weights {text}: write encoder=path, such as clip-b32=clip.safetensors")
        paths[name] = path
    return functools.partial(encoders_for, chosen, paths=paths, random=order.random)


def evaluate(order: Order, given: Given, encoders: EncoderSet, console: Console) -> Evaluation:
    """Extract what is missing, and score.

    Raises:
        StopRun: extraction cannot go on.
    """
    count = len(given.submissions)
    texts, characters = texts_of(given.stories), mapped(given.stories)
    made = recipe(given.chosen, weights=encoders.weights, prompts=texts, characters=characters)
    found = extracted(order, given, encoders, console)
    with console.status("scoring"):
        results = [scored(one, given, made) for one in found]
        controls = results[count:]
        notes: list[str] = []
        if order.controls:
            frozen, notes = frozen_control(found[0], given, made)
            controls += frozen
    audits, unaudited = audit_prompts(given.stories, given.chosen)
    return Evaluation(
        preset=given.chosen, recipe=made, stories=given.stories, methods=tuple(results[:count]),
        controls=tuple(controls), encoders=encoders.facts, audits=audits, certificate=certificate(encoders),
        faults=(*given.faults, *encoders.notes, *unaudited, *notes), environment=environment(given),
        command=order.command,
    )  # fmt: skip


def extracted(order: Order, given: Given, encoders: EncoderSet, console: Console) -> list[Extracted]:
    """Features of the methods, then of the controls that are submissions themselves.

    Raises:
        StopRun: an encoder fails, a worker is killed, or the disk is full.
    """
    from benchmark.controls import rearranged
    from benchmark.extraction.run import extract_all
    from benchmark.extraction.spreading import Place
    from benchmark.extraction.working import ExtractionError

    submissions, first, features = list(given.submissions), given.submissions[0], given.features
    if order.controls:
        submissions += rearranged(first, given.stories)
    spread = order.workers > 1 or order.ray
    source = _factory(order, given.chosen) if spread else encoders
    place = Place(workers=order.workers, devices=_devices(order), ray=order.ray)
    done: Counter[str] = Counter()
    with console.status("decoding and encoding") as status:

        def tell(kind: str, number: int) -> None:
            done[kind] += number
            shown = ", ".join(f"{name} {count}" for name, count in sorted(done.items()))
            status.update(f"decoding and encoding: {shown}")

        try:
            return extract_all(
                submissions, given.stories, given.chosen, source, features, place=place, tell=tell
            )
        except ExtractionError as error:
            raise StopRun(f"{error}; what was encoded is kept: run the same command again") from error
        except OSError as error:
            told = f"{error.filename or features}: {error.strerror or error}"
            raise StopRun(f"{told}; what was encoded is kept: run the same command again") from error


def _devices(order: Order) -> tuple[str, ...]:
    from benchmark.encoders.load import chosen_device

    return tuple(chosen_device(device) for device in order.device.split(","))


def scored(one: Extracted, given: Given, made: str) -> MethodResult:
    """All readings of the preset's columns on a method."""
    started = time.perf_counter()
    chosen = given.chosen
    scores = score(all_readings(chosen), given.stories, one.store, recipe=made, strict=chosen.strict_missing)
    seconds = {**one.work.seconds, "metrics": time.perf_counter() - started}
    return MethodResult(
        submission=one.submission, scores=scores, store=one.store, faults=one.faults,
        work=replace(one.work, seconds=seconds),
    )  # fmt: skip


def frozen_control(first: Extracted, given: Given, made: str) -> tuple[list[MethodResult], list[str]]:
    """The first method with every shot frozen, and a line if that cannot be had."""
    from benchmark.controls import frozen
    from curation.video.decode import BadInput

    try:
        submission, store = frozen(first.submission, given.stories, first.store, given.features)
    except (BadInput, ValueError) as error:
        return [], [f"no frozen control: {getattr(error, 'detail', '') or error}"]
    metrics, strict = all_readings(given.chosen), given.chosen.strict_missing
    scores = score(metrics, given.stories, store, recipe=made, strict=strict)
    return [MethodResult(submission=submission, scores=scores, store=store)], []


def audit_prompts(stories: Mapping[str, Story], chosen: Preset) -> tuple[dict[str, StoryAudit], list[str]]:
    """What the text tower reads of each story's prompts, and a line if that cannot be told here."""
    from benchmark.encoders.load import needed
    from benchmark.encoders.tokenizer import tokenize
    from curation.optional import MissingExtra
    from curation.weights import WeightsDamaged, WeightsMissing

    if chosen.viclip not in needed(chosen):
        return {}, []
    try:
        return {key: audit(story, tokenize, joiner=chosen.scene_joiner) for key, story in stories.items()}, []
    except (MissingExtra, WeightsMissing, WeightsDamaged) as error:
        return {}, [f"how much of the prompts a text tower reads is not told: {error}"]


def certificate(encoders: EncoderSet) -> tuple[str, ...]:
    """How far this installation is from reference numbers, on the devices and in the precisions used."""
    from benchmark.encoders.certificate import certificate_lines

    used = {(fact.device, fact.precision) for fact in encoders.facts if not fact.missing}
    if not used:
        return ("not checked, for no learned column was computed: memento doctor checks the encoders",)
    many = len(used) > 1
    found = []
    for device, precision in sorted(used):
        where = f"{device}, {precision}: " if many else ""
        found += [f"{where}{line}" for line in certificate_lines(device, precision)]
    return tuple(found)


def texts_of(stories: Mapping[str, Story]) -> list[str]:
    """All texts that videos are compared with, in order."""
    found = []
    for key in sorted(stories):
        found += [key, stories[key].overview or "", *(shot.prompt for shot in stories[key].shots)]
    return found


def environment(given: Given) -> dict[str, str]:
    """What the numbers were made with, for the manifest."""
    found = {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    found["colour matrix"] = "the file's own; bt601 where it names none"
    return found | {f"prompts {name}": form for name, form in given.generated_from.items()}
