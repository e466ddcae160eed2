"""Story scripts from a concept: one question to a language model, one more to mend its answer, or an error.

The answer is bound by a JSON schema, then judged as captions and stories are: labels defined, nobody called
`the man`, the grammar of prompts. Whatever the model says, what comes back is a valid story or
`StoryNotWritten`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import pydantic

from curation.captions.answers import AnswerError, read_object
from curation.captions.grammar import LABEL, compose, global_part, labels, reconstruct_target
from curation.captions.lint import (
    LintSettings,
    grammar_faults,
    inventory_faults,
    length_faults,
    shorten,
    undefined_labels,
    vague_faults,
)
from curation.engine.stage import StopRun
from curation.models.chat import LENGTH, STOP, ChatReply, ChatRequest, Text
from curation.stories.script import (
    FORMS,
    MEMENTO,
    NOTE,
    Scene,
    ShotPrompt,
    StoryScript,
    as_json,
    parse_story,
)

PROMPTS = Path(__file__).with_name("prompt_files")
OK, REPAIRED = "ok", "repaired"
MAX_SHOTS, MAX_CONCEPT = 200, 8000
PROMPT_CHARS = (40, 900)
LABELS = tuple(f"[{kind} {c}]" for kind in ("Person", "Animal", "Vehicle", "Group") for c in "ABCDEF")
"""Labels that an answer bound by the schema can use."""
TOKENS_PER_SHOT, TOKENS_BESIDES = 260, 800
MAX_FAULTS = 20
"""Faults named in the second question."""
SHOWN = 24_000
"""Characters of a failed answer that the second question repeats."""
JUDGED = LintSettings(strictness="published", description_max_chars=300)


class Asked(Protocol):
    """The part of a `curation.models.chat.ChatClient` that is needed."""

    def ask(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
        """Answer all requests in their order."""


class StoryNotWritten(StopRun):
    """The model gave no usable story; the message says why."""


@dataclass(frozen=True, kw_only=True)
class StoryOrder:
    """What to write.

    Attributes:
        concept: what the story is about, in the user's words.
        scenes, shots: how many.
        form: `memento` or `storymem`.
        prompts: folder with `system.txt`, `memento.txt`, `storymem.txt` and `repair.txt`.
    """

    concept: str
    scenes: int = 3
    shots: int = 9
    form: str = MEMENTO
    prompts: Path = PROMPTS

    def __post_init__(self) -> None:
        """Refuse what no model could fulfil."""
        if not self.concept.strip():
            raise ValueError("the concept is empty: say what the story is about")
        if len(self.concept) > MAX_CONCEPT:
            raise ValueError(
                f"the concept has {len(self.concept):,} characters: {MAX_CONCEPT:,} are the most"
            )
        if not 1 <= self.scenes <= self.shots <= MAX_SHOTS:
            told = f"{self.scenes} scenes with {self.shots} shots"
            raise ValueError(f"{told}: give 1 to {MAX_SHOTS} shots and at most as many scenes as shots")
        if self.form not in FORMS:
            raise ValueError(f"{self.form!r} is no form of story script; there are {', '.join(FORMS)}")

    @property
    def max_tokens(self) -> int:
        """Of the answer."""
        return TOKENS_BESIDES + TOKENS_PER_SHOT * self.shots

    @property
    def max_chars(self) -> int:
        """Of an answer that is looked at."""
        return 10 * self.max_tokens


@dataclass(frozen=True, kw_only=True)
class Written:
    """A story and what it took.

    Attributes:
        story: valid.
        status: `ok`, or `repaired` if the model was asked twice.
        replies: all of them, in order.
        faults: of the first answer, one line each.
    """

    story: StoryScript
    status: str
    replies: tuple[ChatReply, ...]
    faults: tuple[str, ...] = ()


class _Character(pydantic.BaseModel):
    label: str
    description: str


class _Shot(pydantic.BaseModel):
    scene: int
    cut: bool
    prompt: str
    first_frame_prompt: str = ""


class _Draft(pydantic.BaseModel):
    story_name: str
    story_overview: str
    characters: list[_Character] = []
    shots: list[_Shot]


def write_from_concept(client: Asked, order: StoryOrder) -> Written:
    """Ask for a story, and once more if the first answer has faults.

    Raises:
        StoryNotWritten: the model refused, failed, or its second answer has faults too.
        StopRun: the client cannot be used, or a prompt file is missing.
    """
    request = story_request(order)
    (first,) = client.ask([request])
    story, faults = judge_reply(first, order)
    if story is not None:
        return Written(story=story, status=OK, replies=(first,))
    (second,) = client.ask([repair_request(order, request, first, faults)])
    story, left = judge_reply(second, order)
    if story is None:
        told = "; ".join(left[:3]) + (f"; and {len(left) - 3} more" if len(left) > 3 else "")
        raise StoryNotWritten(f"no story was written: asked twice, the model still failed: {told}")
    return Written(story=story, status=REPAIRED, replies=(first, second), faults=tuple(faults))


def story_request(order: StoryOrder) -> ChatRequest:
    """The question for a story."""
    told = {"concept": order.concept.strip(), "scenes": order.scenes, "shots": order.shots}
    return ChatRequest(
        system=read_prompt(order.prompts, "system.txt"),
        question=(Text(read_prompt(order.prompts, f"{order.form}.txt", **told)),),
        schema=answer_schema(order),
        max_tokens=order.max_tokens,
    )


def repair_request(
    order: StoryOrder, request: ChatRequest, reply: ChatReply, faults: Sequence[str]
) -> ChatRequest:
    """The same question, the failed answer, and what is wrong with it."""
    lines = [f"- {fault}" for fault in faults[:MAX_FAULTS]]
    if len(faults) > MAX_FAULTS:
        lines.append(f"- and {len(faults) - MAX_FAULTS} more of the same kinds")
    told = {"answer": (reply.text or "")[:SHOWN], "faults": "\n".join(lines)}
    repair = Text(read_prompt(order.prompts, "repair.txt", **told))
    return replace(request, question=(*request.question, repair))


def read_prompt(folder: Path, name: str, **values: Any) -> str:
    """A prompt file with its places such as `{concept}` filled; what is put in is never looked at again.

    Raises:
        StopRun: the file cannot be read, or a place is missing in it.
    """
    path = folder / name
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StopRun(f"{path}: the prompt cannot be read ({error})") from error
    if missing := [place for place in values if f"{{{place}}}" not in text]:
        raise StopRun(f"{path}: the prompt lacks {{{missing[0]}}}: write it where it belongs")
    return re.sub(
        "|".join(rf"\{{{place}\}}" for place in values) or "(?!)", lambda m: str(values[m[0][1:-1]]), text
    )


def answer_schema(order: StoryOrder) -> dict[str, Any]:
    """JSON schema of the model's answer: flat, so that the number of shots is bound too."""

    def text(longest: int) -> dict[str, Any]:
        # Beyond what is accepted, so that a long text is found out and mended instead of cut.
        return {"type": "string", "minLength": 1, "maxLength": longest + longest // 4}

    def record(properties: dict[str, Any]) -> dict[str, Any]:
        required = list(properties)
        return {
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        }

    shot = record(
        {
            "scene": {"type": "integer", "minimum": 1, "maximum": order.scenes},
            "cut": {"type": "boolean"},
            "prompt": text(PROMPT_CHARS[1]),
            "first_frame_prompt": text(400),
        }
    )
    label = {"type": "string", "enum": list(LABELS)}
    character = record({"label": label, "description": text(JUDGED.description_max_chars)})
    fields: dict[str, Any] = {"story_name": text(80), "story_overview": text(800)}
    if order.form == MEMENTO:
        fields["characters"] = {"type": "array", "items": character, "minItems": 1, "maxItems": 12}
    exactly = {"minItems": order.shots, "maxItems": order.shots}
    return record({**fields, "shots": {"type": "array", "items": shot, **exactly}})


def judge_reply(reply: ChatReply, order: StoryOrder) -> tuple[StoryScript | None, list[str]]:
    """The story in a reply, or None and what is wrong with it, one line each.

    Raises:
        StoryNotWritten: there is no answer to mend.
    """
    if reply.finish not in (STOP, LENGTH) or reply.text is None:
        told = shorten(reply.error or "no text")
        raise StoryNotWritten(f"no story was written: the model's answer is {reply.finish}: {told}")
    if reply.finish == LENGTH:
        return None, [f"the answer was cut off at {order.max_tokens} tokens: write shorter prompts"]
    draft, faults = _draft(reply.text, order)
    if draft is None:
        return None, faults
    faults = _draft_faults(draft, order)
    if faults:
        return None, faults
    story, found = parse_story(as_json(_story(draft, order)), draft.story_name)
    faults = [str(fault) for fault in found if fault.level != NOTE]
    return (None if faults else story), faults


def _draft(text: str, order: StoryOrder) -> tuple[_Draft | None, list[str]]:
    """The answer's object, whatever the model wrote around it."""
    try:
        value = read_object(text, set(answer_schema(order)["required"]), set(), order.max_chars)
        return _Draft.model_validate(value, strict=True), []
    except pydantic.ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:MAX_FAULTS]]
    except AnswerError as error:
        lines = [str(error)]
    return None, [shorten(line, 120) for line in lines]


def _draft_faults(draft: _Draft, order: StoryOrder) -> list[str]:
    inventory = _inventory(draft)
    found = [
        f"{shorten(label)} is no label like [Person A]"
        for label, _ in inventory
        if not LABEL.fullmatch(label)
    ]
    if len(draft.shots) != order.shots:
        found.append(f"there are {len(draft.shots)} shots: write {order.shots}")
    numbers = [shot.scene for shot in draft.shots]
    if sorted(numbers) != numbers or set(numbers) != set(range(1, order.scenes + 1)):
        found.append(f"scenes must be 1 to {order.scenes} in order, not {shorten(str(numbers))}")
    if order.form == MEMENTO:
        used = {label for shot in draft.shots for label in labels(shot.prompt)}
        found += [f.text for f in inventory_faults(inventory, [c.label for c in draft.characters], JUDGED)]
        found += [f"no shot shows {shorten(label)}" for label, _ in inventory if label not in used]
    for what, text in (("story_name", draft.story_name), ("story_overview", draft.story_overview)):
        found += [f"{what}: {f.text}" for f in grammar_faults(text)]
    for number, shot in enumerate(draft.shots, start=1):
        faults = [*grammar_faults(shot.prompt), *length_faults(shot.prompt, *PROMPT_CHARS)]
        if order.form == MEMENTO:
            cast = [(label, look) for label, look in inventory if label in labels(shot.prompt)]
            faults += [*undefined_labels(shot.prompt, inventory), *vague_faults(shot.prompt, cast, JUDGED)]
        elif labels(shot.prompt):
            found.append(f"shot {number}: describe characters in words, without labels")
        found += [f"shot {number}: {fault.text}" for fault in faults]
        found += [
            f"shot {number}, first_frame_prompt: {f.text}" for f in grammar_faults(shot.first_frame_prompt)
        ]
    return found


def _inventory(draft: _Draft) -> list[tuple[str, str]]:
    return [(c.label, " ".join(c.description.split()).rstrip(".;, ")) for c in draft.characters]


def _story(draft: _Draft, order: StoryOrder) -> StoryScript:
    looks = dict(_inventory(draft))
    scenes: dict[int, list[ShotPrompt]] = {}
    for shot in draft.shots:
        so_far = scenes.setdefault(shot.scene, [])
        prompt = " ".join(shot.prompt.split())
        if order.form == MEMENTO:
            prompt = compose(global_part([(label, looks[label]) for label in labels(prompt)]), prompt)
        so_far.append(
            ShotPrompt(
                scene_num=shot.scene,
                shot_num=len(so_far) + 1,
                cut=shot.cut or not so_far,  # a new place begins with a cut, as in the public scripts
                prompt=prompt,
                first_frame_prompt=" ".join(shot.first_frame_prompt.split()),
            )
        )
    return StoryScript(
        story_name=draft.story_name.strip(),
        story_overview=draft.story_overview.strip(),
        reconstruct_target=reconstruct_target(list(looks.items())) if order.form == MEMENTO else None,
        scenes=tuple(Scene(scene_num=n, shots=tuple(shots)) for n, shots in scenes.items()),
    )
