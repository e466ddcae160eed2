"""What a report shows, computed from an evaluation: the one place where a report's numbers are made."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmark.aggregate import refuse_different
from benchmark.characters import told_by
from benchmark.evaluation import EncoderFact, Evaluation, MethodResult
from benchmark.presets import Preset, metrics_of, open_choices
from benchmark.prompts import StoryAudit, Visibility
from benchmark.report.fairness import fairness
from benchmark.report.limits import flags, limits
from benchmark.report.measures import (
    agreements,
    ambiguities,
    differences,
    per_story,
    ranks,
    score_fact,
)
from benchmark.report.pictures import Album, with_pictures
from benchmark.report.schema import (
    FORMAT,
    MEASURED_COLUMN,
    WEIGHT_FREE_COLUMN,
    Encoder,
    MethodFact,
    MetricFact,
    PromptAudit,
    ReportData,
    ShotFact,
    StoryFact,
    StoryView,
    Video,
)
from benchmark.report.shared import lack_different_shots, lacked, pair_scores, shared_scores
from benchmark.report.similar import (
    mean_floor,
    shot_features,
    similarity_kind,
    split,
    story_view,
    worst_pairs,
)
from benchmark.scoring import Metric
from benchmark.statistics import small_sample_line
from benchmark.stories import Story
from benchmark.submission import Clip
from benchmark.words import counted

UNAVAILABLE = "unavailable: weights missing"
_ENCODERS_OF = (
    ("viclip", ("viclip",)),
    ("text", ("viclip",)),
    ("clip_b32", ("clip-b32",)),
    ("dino_b14", ("dinov2",)),
    ("aes_mlp", ("clip-l14", "aes-mlp")),
    ("aes_linear", ("clip-l14", "aes-linear")),
)
"""Start of a kind of features -> starts of the encoders that make it."""


def report_data(evaluation: Evaluation, *, folder: Path | str = ".", pictures: bool = True) -> ReportData:
    """Everything that a report of an evaluation shows.

    Args:
        evaluation: what was scored.
        folder: where the report will lie; videos are named relative to it.
        pictures: whether small pictures are decoded from the videos.

    Raises:
        RecipeMismatch: the methods were scored in different ways.
    """
    everyone, chosen = [*evaluation.methods, *evaluation.controls], evaluation.preset
    refuse_different([evaluation.recipe, *(method.scores.recipe for method in everyone)])
    scored = metrics_of(chosen)
    metrics = _metric_facts(scored, evaluation)
    stories = [story_fact(story) for story in evaluation.stories.values()]
    methods = [
        _method_fact(one, metrics, Path(folder), evaluation, control=one in evaluation.controls)
        for one in everyone
    ]
    compared = methods[: len(evaluation.methods)]
    scores = shared_scores(evaluation, evaluation.methods, readings=True)
    values = per_story(metrics, scores, chosen.order)
    of_pair, found = pair_scores(evaluation), limits(evaluation, scored)
    kind = similarity_kind(evaluation)
    shown = shot_features(evaluation, kind) if kind else {}
    album = Album()
    worst = worst_pairs(evaluation.stories, shown)
    posters: dict[str, str] = {}
    if pictures:
        worst, posters = with_pictures(evaluation, worst, album)
    rows, between = fairness(compared, stories, evaluation.environment)
    return ReportData(
        format=FORMAT,
        recipe=evaluation.recipe,
        preset=chosen.name,
        dated=chosen.dated,
        order=chosen.order,
        choices=_choices(chosen),
        metrics=metrics,
        stories=stories,
        methods=methods,
        differences=differences(
            metrics, values, lambda a, b: per_story(metrics, of_pair(a, b), chosen.order)
        ),
        ranks=ranks(metrics, values),
        calibration=found,
        split=split(evaluation, kind) if kind else [],
        ambiguity=ambiguities(metrics, scores, chosen.order),
        agreement=agreements(values),
        audits={key: _audit(audit, key) for key, audit in sorted(evaluation.audits.items())},
        views={key: story_view(story, shown) for key, story in evaluation.stories.items()}
        if kind
        else {key: StoryView(matrices=[], drift=[]) for key in evaluation.stories},
        worst_pairs=worst,
        fairness=rows,
        fairness_flags=between,
        encoders=[_encoder(fact) for fact in evaluation.encoders],
        certificate=list(evaluation.certificate),
        environment=dict(evaluation.environment),
        similarity_kind=kind,
        similarity_floor=mean_floor(evaluation, kind) if kind else None,
        flags=flags(metrics, methods, found, chosen.order),
        warnings=_warnings(evaluation),
        faults=list(evaluation.faults),
        command=evaluation.command,
        pictures=album.pictures,
        posters=posters,
        pictures_left_out=album.left_out,
    )


def story_fact(story: Story) -> StoryFact:
    """A story as plain values."""
    present: dict[str, list[str]] = {}
    for name, keys in story.characters().items():
        for key in keys:
            present.setdefault(key.stem, []).append(name)
    texts = [story.overview, *([s.key.stem, s.prompt, s.cut] for s in story.shots)]
    return StoryFact(
        key=story.key,
        source=story.source,
        overview=story.overview,
        shots=[
            ShotFact(
                stem=shot.key.stem,
                scene=scene.number,
                prompt=shot.prompt,
                cut=shot.cut,
                characters=present.get(shot.key.stem, []),
            )
            for scene in story.scenes
            for shot in scene.shots
        ],
        faults=list(story.faults),
        prompts_sha256=hashlib.sha256(json.dumps(texts, ensure_ascii=True).encode()).hexdigest(),
        characters_from=told_by(story),
    )


def _metric_facts(scored: Sequence[Metric], evaluation: Evaluation) -> list[MetricFact]:
    table = {metric.name for metric in metrics_of(evaluation.preset, weight_free=False)}
    found = []
    for metric in scored:
        missing = [fact for fact in evaluation.encoders if fact.missing and _makes(fact, metric.needs)]
        nowhere = all(metric.name in method.scores.unavailable for method in evaluation.methods)
        reason = ""
        if nowhere and evaluation.methods:
            told = evaluation.methods[0].scores.unavailable[metric.name]
            reason = f"{UNAVAILABLE}: {_commands(missing)}" if missing else f"unavailable: {told}"
        found.append(
            MetricFact(
                name=metric.name,
                title=metric.title,
                part=MEASURED_COLUMN if metric.name in table else WEIGHT_FREE_COLUMN,
                unit=metric.unit,
                group=metric.group,
                higher_is_better=metric.higher_is_better,
                column=metric.column,
                source=metric.source,
                options=", ".join(f"{name}={_plain(value)}" for name, value in metric.options.items()),
                needs=list(metric.needs),
                encoders=[fact.name for fact in missing] if reason else [],
                reason=reason,
            )
        )
    return found


def _commands(missing: Sequence[EncoderFact]) -> str:
    """Why encoders are missing, each reason once; one that only repeats another adds nothing."""
    texts = list(dict.fromkeys(fact.missing for fact in missing))
    return "; ".join(text for text in texts if not any(o != text and o in text for o in texts))


def _makes(fact: EncoderFact, needs: Sequence[str]) -> bool:
    """Whether an encoder makes a kind of features that a metric needs."""
    return any(
        kind.startswith(start) and fact.name.startswith(names)
        for kind in needs
        for start, names in _ENCODERS_OF
    )


def _plain(value: object) -> str:
    """An option as text: `every=8 frames`, `tags=Person, Animal`."""
    frames, seconds = getattr(value, "frames", None), getattr(value, "seconds", None)
    if frames is not None or seconds is not None:
        return f"{frames} frames" if frames is not None else f"{seconds} s"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _method_fact(
    method: MethodResult,
    metrics: Sequence[MetricFact],
    folder: Path,
    evaluation: Evaluation,
    *,
    control: bool,
) -> MethodFact:
    submission = method.submission
    scores = {
        metric.name: score_fact(
            method.scores.metrics[metric.name],
            metric.reason or _lacking(method, metric, evaluation.encoders),
        )
        for metric in metrics
        if metric.name in method.scores.metrics
    }
    return MethodFact(
        name=method.name,
        control=control,
        videos={
            key: {shot.stem: _video(clip, folder) for shot, clip in clips.items() if clip.facts}
            for key, clips in submission.clips.items()
        },
        missing=submission.missing_lines(),
        missing_shots=[f"{key}/{shot.stem}" for key, shot in submission.missing],
        ignored=[list(pair) for pair in submission.ignored],
        faults=list(dict.fromkeys([*submission.faults, *method.faults])),
        work={
            name: dict(value) if isinstance(value, Mapping) else value
            for name, value in asdict(method.work).items()
        },
        scores=scores,
    )


def _lacking(method: MethodResult, metric: MetricFact, encoders: Sequence[EncoderFact]) -> str:
    """Why one method has no number where others have; empty where the score itself tells."""
    if metric.name not in method.scores.unavailable:
        return ""
    if not any(method.submission.clips.values()):
        return "it has no shot"
    missing = [fact for fact in encoders if fact.missing and _makes(fact, metric.needs)]
    return f"{UNAVAILABLE}: {_commands(missing)}" if missing else ""


def _video(clip: Clip, folder: Path) -> Video:
    facts = clip.facts
    assert facts is not None
    whole = clip.start == 0 and clip.end in (None, facts.frames)
    return Video(
        path=Path(os.path.relpath(clip.path, folder)).as_posix(),
        id=clip.id,
        frames=clip.num_frames,
        fps=facts.fps,
        height=facts.height,
        width=facts.width,
        codec=facts.codec,
        pix_fmt=facts.pix_fmt,
        bitrate=facts.bitrate,
        matrix=facts.matrix,
        start_s=clip.start / facts.fps,
        end_s=None if whole or clip.end is None else clip.end / facts.fps,
    )


def _choices(chosen: Preset) -> dict[str, list[str]]:
    return {
        name: [str(value), ", ".join(repr(other) for other in others), source]
        for name, value, others, source in open_choices(chosen)
    }


def _encoder(fact: EncoderFact) -> Encoder:
    return Encoder(**asdict(fact))


def _audit(audit: StoryAudit, key: str) -> PromptAudit:
    return PromptAudit(
        shots={shot.stem: _seen(seen) for shot, seen in audit.shots.items()},
        scenes={str(number): _seen(seen) for number, seen in audit.scenes.items()},
        overview=_seen(audit.overview) if audit.overview else None,
        alike=[[shot.stem for shot in group] for group in audit.alike],
        distinct=audit.distinct,
        lines=audit.lines(key),
    )


def _seen(seen: Visibility) -> list[int | None]:
    return [seen.tokens, seen.seen, seen.shot_tokens, seen.shot_seen]


def _warnings(evaluation: Evaluation) -> list[str]:
    found = []
    if random := [fact.name for fact in evaluation.encoders if fact.random]:
        found.append(
            f"the weights of {', '.join(random)} are random numbers: the learned columns test the machinery "
            "and say nothing about the videos"
        )
    for precision in sorted({f.precision for f in evaluation.encoders if not f.missing} - {"fp32"}):
        found.append(f"encoders ran in {precision}: another recipe than fp32, with other numbers")
    if line := small_sample_line(len(evaluation.stories)):
        found.append(line)
    return found + list(_missing(evaluation))


def _missing(evaluation: Evaluation) -> Iterator[str]:
    """A line for each method that lacks shots, and what that means where the others do not lack the same."""
    total = sum(len(story.shots) for story in evaluation.stories.values())
    for method in evaluation.methods:
        if missing := len(method.submission.missing):
            lacks = counted(missing, "shot, which is", "shots, which are")
            own = f"its cells are of {total - missing} of {total} shots"
            yield f"{method.name} lacks {lacks} in no number: {own}"
    if lack_different_shots(evaluation.methods):
        shared = total - len(frozenset().union(*map(lacked, evaluation.methods)))
        yield (
            f"the methods lack different shots, and {shared} of {total} are of all of them: cells of the "
            "tables are of each method's own shots; differences, chances of ranks and readings of shared ones"
        )
