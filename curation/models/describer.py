"""The embedded captioner: plain English from measured facts. It sees no meaning and claims none.

Everything it says comes from boxes, colours and brightness; it never names an action, a place, an age or an
object that was not detected. The same facts give the same words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from curation.captions.facts import Scene, Seen, Shot, Subject, Target, View
from curation.engine.store import digest
from curation.models.captioner import Answer, Captions, Memory, StoryAnswer

REVISION = "2"

# (upper bound, words); the last has none
SIZES = (
    (0.02, "very wide view"),
    (0.08, "wide view"),
    (0.2, "medium view"),
    (0.4, "medium close-up"),
    (9, "close-up"),
)
LIGHT = (
    (25, "very dark"),
    (60, "dark"),
    (95, "dim"),
    (150, "medium-bright"),
    (195, "bright"),
    (256, "very bright"),
)
CONTRAST = ((28, "low"), (55, "moderate"), (256, "strong"))
GREY = "no colour"
COLOURFULNESS = ((6, GREY), (30, "muted colours"), (70, "moderate colours"), (256, "vivid colours"))
CHANGE = (
    (1.0, "Almost nothing changes from frame to frame."),
    (4.0, "The picture changes gently throughout."),
    (9.0, "The picture changes clearly from moment to moment."),
    (256, "The whole picture is in strong motion."),
)
SPEED = ((0.04, "slowly"), (0.15, "steadily"), (99, "quickly"))
LEADS = (
    "{A_view} shows {who} {where}.",
    "{Where}, {who} is seen in {a_view}.",
    "{who} is framed {where} in {a_view}.",
    "The shot presents {who} {where}, in {a_view}.",
)
STILL = (
    "{who} keeps to the same part of the picture.",
    "{who} hardly changes place.",
    "The place of {who} in the frame stays nearly the same.",
)
MOVES = (
    "{who} moves {speed} {way}{growth}.",
    "{Speed}, {who} shifts {way}{growth}.",
    "{who} travels {speed} {way} across the picture{growth}.",
)
VIEWS = (
    "The picture is {light}, with {contrast} contrast and {colourfulness}, mostly {colours}.",
    "Mostly {colours}, the view is {light} with {contrast} contrast and {colourfulness}.",
    "The view has {colourfulness}, mainly {colours}, and is {light} with {contrast} contrast.",
)
EMPTY = (
    "No tracked subject is in view.",
    "The shot shows the setting without a tracked subject.",
    "The view holds no tracked subject.",
)
TEMPLATES: dict[str, Any] = {
    "story": [REVISION, SIZES, LIGHT, CONTRAST, COLOURFULNESS],
    "shot": [
        REVISION,
        SIZES,
        LIGHT,
        CONTRAST,
        COLOURFULNESS,
        CHANGE,
        SPEED,
        LEADS,
        STILL,
        MOVES,
        VIEWS,
        EMPTY,
    ],
    "recon": [REVISION, SIZES, LIGHT],
}

SMALL_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NAMED = 4  # subjects that a story tells about one by one
MOVING = 3  # subjects of a shot whose movement is told
FAR = 0.06  # share of the picture that counts as a movement
GROWTH = 1.4  # of the area, that counts as coming or going
TOGETHER_S = 0.25  # subjects that share less of a shot are not compared
SOON_S = 0.75  # later than this a subject counts as coming into view


class Describer:
    """A `curation.models.captioner.Captioner` without weights."""

    backend, model_id, revision = "describe", "describer", REVISION
    sampling: Mapping[str, Any] = {}
    measures: ClassVar[bool] = True

    def prompt_hash(self, stage: str) -> str:
        """Hash of the stage's phrases."""
        return digest(TEMPLATES[stage])

    def caption(self, scene: Scene, memory: Memory) -> Captions:
        """Put everything into words; nothing costs enough to be kept."""
        story = self.story(scene)
        return Captions(story=story, shots=self.shots(scene, story), recon=self.recon(scene, story))

    def story(self, scene: Scene) -> StoryAnswer:
        """Who is seen when, how the sequence begins and ends, and how its shots differ."""
        descriptions = describe_all(scene)
        return StoryAnswer(text=" ".join(_story(scene, descriptions)), descriptions=descriptions)

    def shots(self, scene: Scene, story: StoryAnswer) -> Sequence[Answer]:
        """Framing, place and movement of the subjects in view, then light, colours and length."""
        start = int(digest(scene.sequence_id)[:8], 16)
        return [Answer(text=" ".join(_shot(shot, start + shot.number))) for shot in scene.shots]

    def recon(self, scene: Scene, story: StoryAnswer) -> Sequence[Answer]:
        """The subject's fixed description, its size and place in the frame, and who else is there."""
        return [Answer(text=_recon(target, story.descriptions)) for target in scene.targets]


# -- subjects -----------------------------------------------------------------------------------


def describe(subject: Subject) -> str:
    """What the subject is and its colours: `person in mostly dark blue and orange tones`."""
    noun = "moving subject" if subject.class_name == "region" else subject.class_name
    return f"{noun} in mostly {_and(subject.colours)} tones" if subject.colours else noun


def describe_all(scene: Scene) -> dict[str, str]:
    """A description for each label, no two alike: where colours agree, the first appearance tells apart."""
    descriptions = {s.label: describe(s) for s in scene.subjects}
    texts = list(descriptions.values())
    for subject in scene.subjects:
        if texts.count(describe(subject)) > 1 and (first := _first_seen(scene, subject.label)):
            shot, seen = first
            where = _where(*seen.start)
            descriptions[subject.label] += f", first seen in shot {shot.number} {where}"
    again: dict[str, int] = {}
    for label, text in descriptions.items():
        again[text] = again.get(text, 0) + 1
        if again[text] > 1:
            descriptions[label] = f"{text}, the {_ordinal(again[text])} of these"
    return descriptions


def _first_seen(scene: Scene, label: str) -> tuple[Shot, Seen] | None:
    return next(((shot, s) for shot in scene.shots for s in shot.seen if s.label == label), None)


# -- story --------------------------------------------------------------------------------------


def _story(scene: Scene, descriptions: dict[str, str]) -> list[str]:
    shots = scene.shots
    total = sum(shot.duration_s for shot in shots)
    colours = _and(_most_common([c for shot in shots for c in shot.view.colours]))
    luma = sum(shot.view.luma * shot.duration_s for shot in shots) / total
    if all(_name(COLOURFULNESS, shot.view.chroma) == GREY for shot in shots):
        look = f"{_name(LIGHT, luma)} black-and-white pictures"
    else:
        look = f"{_name(LIGHT, luma)} pictures that are mostly {colours}"
    text = [f"{_count(len(shots), 'shot')}, {_seconds(total)} in all, in {look}."]
    named = sorted(scene.subjects, key=lambda s: (not s.is_primary, -s.screen_time_s, s.label))
    seen_labels = {s.label for shot in shots for s in shot.seen}
    named = [s for s in named if s.label in seen_labels]
    text += [_cast(scene, s, descriptions[s.label]) for s in named[:NAMED]]
    if len(named) > NAMED:
        text.append(f"Also seen: {_and([s.label for s in named[NAMED:]])}.")
    text += _together(scene)
    if len(shots) > 1:
        text.append(f"The sequence opens with {_glimpse(shots[0])} and ends with {_glimpse(shots[-1])}.")
        text += _differences(shots)
    return text


def _cast(scene: Scene, subject: Subject, description: str) -> str:
    numbers = [shot.number for shot in scene.shots if any(s.label == subject.label for s in shot.seen)]
    role = "is the main subject and appears" if subject.is_primary else "appears"
    where = "every shot" if len(numbers) == len(scene.shots) > 1 else _numbered(numbers)
    long = _seconds(max(1.0, subject.screen_time_s), whole=True)
    return f"{subject.label}, {_a(description)}, {role} in {where}, for about {long}."


def _together(scene: Scene) -> list[str]:
    groups: dict[tuple[str, ...], list[int]] = {}
    for shot in scene.shots:
        if len(shot.seen) > 1:
            groups.setdefault(tuple(sorted(s.label for s in shot.seen)), []).append(shot.number)
    text = []
    for who, numbers in sorted(groups.items(), key=lambda g: (-len(g[1]), g[0]))[:1]:
        text.append(f"{_and(who)} share {_numbered(numbers)}.")
    return text


def _glimpse(shot: Shot) -> str:
    if shot.seen:
        lead = shot.seen[0]
        return f"{_a(_name(SIZES, lead.area))} of {lead.label} {_where(lead.x, lead.y)}"
    return f"{_a(_name(LIGHT, shot.view.luma))} view without a tracked subject"


def _differences(shots: Sequence[Shot]) -> list[str]:
    text = []
    by_length = sorted(shots, key=lambda s: (s.duration_s, s.number))
    short, long = by_length[0], by_length[-1]
    if long.duration_s - short.duration_s > 1:
        text.append(
            f"Shot {long.number} is the longest at {_seconds(long.duration_s)}, shot {short.number} the "
            f"shortest at {_seconds(short.duration_s)}."
        )
    by_change = sorted(shots, key=lambda s: (s.view.change, s.number))
    if by_change[-1].view.change > 2 * by_change[0].view.change + 1:
        text.append(
            f"Shot {by_change[-1].number} has the most movement, shot {by_change[0].number} the least."
        )
    by_light = sorted(shots, key=lambda s: (s.view.luma, s.number))
    if by_light[-1].view.luma - by_light[0].view.luma > 20:
        text.append(f"Shot {by_light[-1].number} is the brightest and shot {by_light[0].number} the darkest.")
    return text


# -- shots --------------------------------------------------------------------------------------


def _shot(shot: Shot, turn: int) -> list[str]:
    text = []
    if shot.seen:
        text.append(_lead(shot.seen[0], turn))
        text += [_beside(other, shot.seen[0]) for other in shot.seen[1:]]
        moving = shot.seen[:MOVING]
        text += [_movement(s, turn + i) for i, s in enumerate(moving)]
        text += [line for s in moving if (line := _presence(s, shot.duration_s))]
    else:
        text.append(EMPTY[turn % len(EMPTY)])
    text.append(_view(shot.view, turn))
    text.append(_name(CHANGE, shot.view.change))
    if abs(shot.view.trend) > 12:
        text.append(f"The picture grows {'brighter' if shot.view.trend > 0 else 'darker'} towards the end.")
    text.append(f"The shot lasts {_seconds(shot.duration_s)}.")
    return text


def _lead(seen: Seen, turn: int) -> str:
    view, where = _a(_name(SIZES, seen.area)), _where(seen.x, seen.y)
    return _pick(LEADS, turn).format(
        who=seen.label, a_view=view, A_view=_capital(view), where=where, Where=_capital(where)
    )


def _beside(seen: Seen, lead: Seen) -> str:
    if min(seen.last_s, lead.last_s) - max(seen.first_s, lead.first_s) < TOGETHER_S:
        when = "Earlier" if seen.first_s < lead.first_s else "Later"
        view, where = _a(_name(SIZES, seen.area)), _where(seen.x, seen.y)
        return f"{when}, {seen.label} is seen {where}, in {view}."
    dx, dy = seen.x - lead.x, seen.y - lead.y
    if max(abs(dx), abs(dy)) < 0.08:
        place = "in the same part of the frame as"
    elif abs(dx) >= abs(dy):
        place = "to the right of" if dx > 0 else "to the left of"
    else:
        place = "below" if dy > 0 else "above"
    size = seen.area / max(lead.area, 1e-6)
    shares = ((0.15, "much smaller"), (0.6, "smaller"), (99, "about as large"))
    return f"{seen.label}, {_name(shares, size)} in the frame, is {place} {lead.label}."


def _movement(seen: Seen, turn: int) -> str:
    dx, dy = seen.end[0] - seen.start[0], seen.end[1] - seen.start[1]
    growth = ""
    if seen.growth > GROWTH:
        growth = " and grows larger in the frame"
    elif seen.growth < 1 / GROWTH:
        growth = " and becomes smaller in the frame"
    if max(abs(dx), abs(dy)) < FAR:
        if growth:
            return f"{seen.label} stays in place{growth}."
        return _pick(STILL, turn).format(who=seen.label)
    ways = []
    if abs(dx) >= FAR:
        ways.append("to the right" if dx > 0 else "to the left")
    if abs(dy) >= FAR:
        ways.append("downwards" if dy > 0 else "upwards")
    speed = _name(SPEED, max(abs(dx), abs(dy)) / max(seen.last_s - seen.first_s, 0.25))
    line = _pick(MOVES, turn).format(
        who=seen.label, speed=speed, Speed=_capital(speed), way=" and ".join(ways), growth=growth
    )
    return line


def _presence(seen: Seen, duration_s: float) -> str | None:
    late, early = seen.first_s > SOON_S, duration_s - seen.last_s > SOON_S + 0.5
    if late and early:
        return f"{seen.label} is seen from {_seconds(seen.first_s)} to {_seconds(seen.last_s)} into the shot."
    if late:
        return f"{seen.label} comes into view after {_seconds(seen.first_s)}."
    if early:
        return f"{seen.label} is last seen {_seconds(max(seen.last_s, 0.1))} into the shot."
    return None


def _view(view: View, turn: int) -> str:
    light, contrast = _name(LIGHT, view.luma), _name(CONTRAST, view.contrast)
    colourfulness = _name(COLOURFULNESS, view.chroma)
    if colourfulness == GREY:
        return f"The picture is black and white, {light}, with {contrast} contrast."
    return _pick(VIEWS, turn).format(
        light=light,
        contrast=contrast,
        colourfulness=colourfulness,
        colours=_and(view.colours),
    )


# -- targets ------------------------------------------------------------------------------------


def _recon(target: Target, descriptions: Any) -> str:
    view = _a(_name(SIZES, target.area))
    others = f", with {_and(list(target.others))} also in the frame" if target.others else ""
    light = _name(LIGHT, target.shot.view.luma)
    return (
        f"{target.subject.label}: {descriptions[target.subject.label]}, in {view} "
        f"{_where(target.x, target.y)}{others}, in {_a(light)} picture."
    )


# -- words --------------------------------------------------------------------------------------


def _name(scale: Sequence[tuple[float, str]], value: float) -> str:
    return next((words for bound, words in scale if value < bound), scale[-1][1])


def _pick(choices: Sequence[str], turn: int) -> str:
    return choices[turn % len(choices)]


def _where(x: float, y: float) -> str:
    side = "left" if x < 0.36 else "right" if x > 0.64 else ""
    level = "upper" if y < 0.3 else "lower" if y > 0.7 else ""
    if level and side:
        return f"in the {level} {side} of the frame"
    if level:
        return f"in the {level} part of the frame"
    return f"on the {side} side of the frame" if side else "near the centre of the frame"


def _and(words: Sequence[str]) -> str:
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def _numbered(numbers: Sequence[int]) -> str:
    return f"{'shots' if len(numbers) > 1 else 'shot'} {_and([str(n) for n in numbers])}"


def _most_common(words: Sequence[str], limit: int = 3) -> list[str]:
    order = sorted(set(words), key=lambda w: (-words.count(w), w))
    return order[:limit]


def _a(words: str) -> str:
    return f"{'an' if words[:1].lower() in 'aeiou' else 'a'} {words}"


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def _count(number: int, noun: str) -> str:
    words = SMALL_NUMBERS[number] if number < len(SMALL_NUMBERS) else str(number)
    return f"{_capital(words)} {noun}{'' if number == 1 else 's'}"


def _seconds(value: float, *, whole: bool = False) -> str:
    text = f"{value:.0f}" if whole else f"{value:.1f}".removesuffix(".0")
    return f"{text} second{'' if text == '1' else 's'}"


def _ordinal(number: int) -> str:
    return {1: "first", 2: "second", 3: "third"}.get(number, f"{number}th")
