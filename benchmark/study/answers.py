"""Files of answers: read, checked against the key, and turned back from sides into methods."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.study.design import BROKEN, CHOICES, CRITERIA, LEFT, SAME, TIE, Film
from benchmark.study.kit import StudyError, study_id, token
from benchmark.words import counted

FORMAT = "memento-study-answers/1"


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """One answer.

    Attributes:
        rater: number.
        story: key.
        first, second: the methods, in the order of the study's pairs.
        criterion: of `CRITERIA`.
        value: 1 if the first is better, 0 for a tie, -1 if the second is.
    """

    rater: int
    story: str
    first: str
    second: str
    criterion: str
    value: int


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """The answers of a rater.

    Attributes:
        rater: number.
        path: of the file.
        answered: real comparisons with answers.
        trials: comparisons of the session, checks included.
        checks: (passed, seen) of the attention checks.
        broken: comparisons of films that could not be played.
        judgements: what counts.
        seconds: median time of a comparison.
        left: share of answers other than ties that prefer the left side, None without any.
    """

    rater: int
    path: Path
    answered: int
    trials: int
    checks: tuple[int, int]
    broken: int
    judgements: tuple[Judgement, ...]
    seconds: float
    left: float | None


def read_answers(paths: Iterable[Path], key: Mapping[str, Any]) -> tuple[list[Sheet], list[str]]:
    """The sheets of all raters, and a line for each file that is not used or used in part.

    Args:
        paths: of files that raters sent.
        key: of the study.

    Raises:
        StudyError: the key belongs to a study that was never finished.
    """
    if "sessions" not in key:
        raise StudyError("the key is of a study that was not finished: run `memento study make` again")
    sheets: dict[int, Sheet] = {}
    faults: list[str] = []
    for path in paths:
        try:
            sheet, notes = _sheet(path, key)
        except StudyError as error:
            faults.append(f"{path.name}: not used: {error}")
            continue
        faults += [f"{path.name}: {note}" for note in notes]
        other = sheets.get(sheet.rater)
        if other is None:
            sheets[sheet.rater] = sheet
            continue
        kept, dropped = (other, sheet) if other.answered >= sheet.answered else (sheet, other)
        same = "the same answers" if kept.judgements == dropped.judgements else "other or fewer answers"
        line = f"{dropped.path.name}: not used: {same} of rater {sheet.rater}, who is in {kept.path.name} too"
        faults.append(line)
        sheets[sheet.rater] = kept
    return [sheets[number] for number in sorted(sheets)], faults


def checksum(study: str, rater: int, answers: Sequence[Any]) -> str:
    """CRC-32 of a file's answers as the page computes it: it finds damage and edits by hand, not malice."""
    text = json.dumps([study, rater, answers], separators=(",", ":"), ensure_ascii=False)
    return f"{zlib.crc32(text.encode()):08x}"


def _sheet(path: Path, key: Mapping[str, Any]) -> tuple[Sheet, list[str]]:
    value = _value(path, key)
    rater, answers = value["rater"], value["answers"]
    session = key["sessions"][rater - 1]
    names = {token(key["secret"], Film(method=m, story=s)): m for trials in key["sessions"] for t in trials
             for m, s in (t["left"], t["right"])}  # fmt: skip
    judgements: list[Judgement] = []
    passed = seen = broken = answered = lefts = sides = 0
    times = []
    for answer in _checked(answers, session, names, key["secret"]):
        trial = session[answer["trial"]]
        choices = [answer[criterion] for criterion in CRITERIA]
        times.append(answer["ms"] / 1000)
        if BROKEN in choices:
            broken += 1
        elif trial["check"]:
            seen += 1
            passed += _attentive(trial, answer)
        else:
            answered += 1
            lefts += choices.count(LEFT)
            sides += len(choices) - choices.count(TIE)
            judgements += _judgements(rater, trial, answer, key)
    notes = []
    if len(answers) < len(session):
        of = counted(len(session), "comparison is", "comparisons are")
        notes.append(f"{len(answers)} of {of} answered; these are used")
    if broken:
        told = counted(broken, "comparison does", "comparisons do")
        notes.append(f"{told} not count: a film could not be played")
    if passed < seen:
        notes.append(f"rater {rater} failed {seen - passed} of {counted(seen, 'attention check')}")
    return Sheet(
        rater=rater, path=path, answered=answered, trials=len(session), checks=(passed, seen), broken=broken,
        judgements=tuple(judgements), seconds=sorted(times)[len(times) // 2] if times else 0.0,
        left=lefts / sides if sides else None,
    ), notes  # fmt: skip


def _value(path: Path, key: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StudyError(
            f"cannot be read as JSON, perhaps half a file ({error}); ask for it again"
        ) from error
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise StudyError("is no file of answers")
    if value.get("study") != study_id(key):
        raise StudyError("belongs to another study than the key")
    rater, answers = value.get("rater"), value.get("answers")
    if type(rater) is not int or not 1 <= rater <= len(key["sessions"]):
        raise StudyError(f"the study has no rater {rater!r}")
    if not isinstance(answers, list) or value.get("check") != checksum(value["study"], rater, answers):
        raise StudyError("was changed after it was saved (its checksum is wrong); ask for it again")
    return value


def _checked(
    answers: Sequence[Any], session: Sequence[Any], names: Mapping[str, str], secret: str
) -> Iterable[Mapping[str, Any]]:
    met = set()
    for answer in answers:
        trial = answer.get("trial") if isinstance(answer, dict) else None
        if type(trial) is not int or not 0 <= trial < len(session) or trial in met:
            raise StudyError(f"answers a comparison that is not in the session, or twice: {trial!r}")
        met.add(trial)
        for side in ("left", "right"):
            method, story = session[trial][side]
            if answer.get(side) != token(secret, Film(method=method, story=story)):
                raise StudyError(f"comparison {trial + 1} shows other films than the session")
        if any(answer.get(criterion) not in CHOICES for criterion in CRITERIA):
            raise StudyError(f"comparison {trial + 1} lacks an answer")
        if not isinstance(answer.get("ms"), int):
            raise StudyError(f"comparison {trial + 1} lacks its time")
        yield answer


def _attentive(trial: Mapping[str, Any], answer: Mapping[str, Any]) -> bool:
    if trial["check"] == SAME:
        return all(answer[criterion] == TIE for criterion in CRITERIA)
    right_side = LEFT if trial["left"][1] == trial["story"] else "right"
    return bool(answer["prompt"] == right_side)


def _judgements(
    rater: int, trial: Mapping[str, Any], answer: Mapping[str, Any], key: Mapping[str, Any]
) -> Iterable[Judgement]:
    left, right = trial["left"][0], trial["right"][0]
    order = key["methods"]
    # The reference, or the method that was named first, comes first.
    reference = key["settings"]["reference"]
    swap = right == reference or (left != reference and order.index(right) < order.index(left))
    first, second = (right, left) if swap else (left, right)
    for criterion in CRITERIA:
        value = {LEFT: 1, TIE: 0}.get(answer[criterion], -1)
        yield Judgement(
            rater=rater, story=trial["story"], first=first, second=second, criterion=criterion,
            value=-value if swap else value,
        )  # fmt: skip
