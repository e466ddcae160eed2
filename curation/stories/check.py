"""What a story that could be read may still get wrong: its prompts and the labels in them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest

from curation.captions.grammar import (
    GLOBAL,
    SHOT,
    compose,
    global_part,
    labels,
    parse_inventory,
    split_caption,
)
from curation.stories.file import ERROR, NOTE, WARNING, StoryFault, short
from curation.stories.form import MEMENTO, ShotPrompt, StoryScript

MAX_WORDS, ENDLESS_WORDS = 350, 2000
"""umT5 reads 512 tokens, some 350 English words; what is longer than the second is no prompt."""


def check_prompts(story: StoryScript) -> list[StoryFault]:
    """Faults of the prompts, shot by shot, then of the labels in all of them."""
    faults = [fault for shot in story.shots for fault in _prompt_faults(shot, story.form)]
    return [*faults, *_label_faults(story)]


def _where(shot: ShotPrompt) -> str:
    return f"scene {shot.scene_num}, shot {shot.shot_num}"


def _prompt_faults(shot: ShotPrompt, form: str) -> Iterator[StoryFault]:
    where, words = _where(shot), len(shot.prompt.split())
    if words > ENDLESS_WORDS or len(shot.prompt) > 10 * ENDLESS_WORDS:
        told = f"the prompt has {words:,} words: the model reads about the first {MAX_WORDS}; shorten it"
        yield StoryFault(ERROR, where, told)
        return
    if words > MAX_WORDS:
        told = f"the prompt has {words} words: the model reads about the first {MAX_WORDS}"
        yield StoryFault(WARNING, where, told)
    if form != MEMENTO and GLOBAL not in shot.prompt:
        return
    try:
        told, text = split_caption(shot.prompt)
    except ValueError as error:
        line = f"{error}; the whole prompt is taken for both parts, write '{GLOBAL} ...; {SHOT} ...'"
        yield StoryFault(WARNING, where, line)
        return
    if not text:
        yield StoryFault(ERROR, where, f"nothing after '{SHOT}': say what the shot shows")
        return
    try:
        inventory = parse_inventory(told)
    except ValueError as error:
        yield StoryFault(
            WARNING, where, f"global caption: {error}: write '[Person A]: look, [Person B]: look'"
        )
        return
    described = [label for label, _ in inventory]
    for label in labels(text):
        if label not in described:
            line = f"{label} is not described in the global caption: add '{label}: look'"
            yield StoryFault(WARNING, where, line)
    usual = compose(global_part(inventory), text)
    if usual != shot.prompt:
        at = next(i for i, (one, other) in enumerate(zip_longest(usual, shot.prompt)) if one != other)
        has, wants = (f"'{whole[max(0, at - 20) : at + 20]}'" for whole in (shot.prompt, usual))
        yield StoryFault(NOTE, where, f"has {has}, usually spelt {wants}; it is read")


def _label_faults(story: StoryScript) -> Iterator[StoryFault]:
    used: dict[str, str] = {}
    for shot in story.shots:
        for label in labels(shot.prompt):
            used.setdefault(label, _where(shot))
    example = f"'{next(iter(used), '[Person A]')} look'"
    if story.reconstruct_target is None:
        if used:
            told = f"prompts use {', '.join(list(used)[:5])}, but there is no reconstruct_target"
            yield StoryFault(WARNING, "", f"{told}: add one, with a line {example} for each")
        return
    if used and not story.cast:
        told = f"is empty, but prompts use {', '.join(list(used)[:5])}"
        yield StoryFault(WARNING, "reconstruct_target", f"{told}: add a line {example} for each")
        return
    yield from _cast_faults(story, used)


def _cast_faults(story: StoryScript, used: dict[str, str]) -> Iterator[StoryFault]:
    """The lines of `reconstruct_target` against the labels in the prompts and where each comes first."""
    cast = dict(story.cast)
    for line in filter(str.strip, (story.reconstruct_target or "").splitlines()):
        if not any(line.strip().startswith(label) for label in cast):
            told = f"{short(line.strip())} is not read: begin the line with a label, '[Person A] look'"
            yield StoryFault(WARNING, "reconstruct_target", told)
    for label, where in used.items():
        if label not in cast:
            told = f"{label} is not in reconstruct_target: add a line '{label} look'"
            yield StoryFault(WARNING, where, told)
    for label, look in cast.items():
        if label not in used:
            yield StoryFault(WARNING, "reconstruct_target", f"no prompt uses {label}: remove its line")
        elif other := _told_otherwise(story, label, look):
            told = f"{label} looks otherwise in {other}: describe {label} in the same words everywhere"
            yield StoryFault(WARNING, "reconstruct_target", told)


def _told_otherwise(story: StoryScript, label: str, look: str) -> str:
    """The first shot whose global caption describes a label in other words; empty if there is none."""
    for shot in story.shots:
        try:
            told = dict(parse_inventory(split_caption(shot.prompt)[0])).get(label, look)
        except ValueError:
            continue
        if told.split() != look.split():
            return _where(shot)
    return ""
