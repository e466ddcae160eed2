"""Words that point at somebody without saying who: pronouns and generic nouns.

Whether such a word is a fault depends on who could be meant. `the man` is one where a man has a label, and
none where the only labels are a woman's and a cat's; `it` is none in `it is raining`. So each word is held
against the subjects it could stand for: by kind, gender, age and number, as far as these are known.

A word list is enough for this. On the 890 prompts of the published scripts, which hold 380 of these nouns,
the two part-of-speech taggers that install without a download (HanTa, TextBlob) differ from the list only
over `adult`, `male`, `female` and `human` before another noun, and `ADJECTIVES` knows these.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from curation.captions.grammar import LABEL, Inventory, head_phrase, labels

MALE, FEMALE = "male", "female"
CHILD, ADULT = "child", "adult"


@dataclass(frozen=True)
class Noun:
    """What a generic noun says about whom it stands for.

    Attributes:
        gender, age: None where it leaves them open.
        plural: it stands for several, so two labelled subjects must be there for it to mean them.
        role: it says what somebody does (`the driver`); extras have roles too, so it counts only while a
            labelled subject of the shot is not named.
        crowd: it also stands for people in general; counts only with a number (`the two people`).
        anything: it can stand for animals, machines and puppets as well.
        creature: it stands for animals and made-up beings, not for people.
    """

    gender: str | None = None
    age: str | None = None
    plural: bool = False
    role: bool = False
    crowd: bool = False
    anything: bool = False
    creature: bool = False


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _nouns(singular: str, plural: str, **what: object) -> dict[str, Noun]:
    return {w: Noun(**what) for w in singular.split()} | {  # type: ignore[arg-type]
        w: Noun(**what, plural=True)  # type: ignore[arg-type]
        for w in plural.split()
    }


NOUNS: dict[str, Noun] = {
    **_nouns("man gentleman", "men gentlemen", gender=MALE, age=ADULT),
    **_nouns("boy guy lad fellow male", "boys guys lads fellows males", gender=MALE),
    **_nouns("woman lady", "women ladies", gender=FEMALE, age=ADULT),
    **_nouns("girl gal female", "girls gals females", gender=FEMALE),
    **_nouns("child kid toddler baby infant", "children kids toddlers babies infants", age=CHILD),
    **_nouns("adult", "adults couple", age=ADULT),
    **_nouns("person human teenager youth", "humans teenagers youths"),
    **_nouns("", "people persons", crowd=True),
    **_nouns(
        "figure individual character subject protagonist",
        "figures individuals characters subjects protagonists pair duo trio",
        anything=True,
    ),
    **_nouns("someone somebody", ""),
    **_nouns("creature beast critter pet", "creatures beasts critters pets", creature=True),
    **_nouns("", "two latter", anything=True),
    **_nouns("hero", "heroes", gender=MALE, role=True),
    **_nouns("heroine actress waitress", "heroines actresses waitresses", gender=FEMALE, role=True),
    **_nouns("father dad grandfather grandpa husband son brother uncle", "", gender=MALE, role=True),
    **_nouns("mother mom mum grandmother grandma wife daughter sister aunt", "", gender=FEMALE, role=True),
    **_nouns("parent sibling spouse", "", role=True),
    **_nouns(
        "actor performer artist musician singer dancer painter writer driver rider pilot worker officer"
        " soldier sailor captain detective doctor nurse teacher student scientist speaker host cook chef"
        " waiter player guard farmer fisherman traveller traveler explorer stranger companion",
        "",
        role=True,
    ),
}
"""Nouns that stand for people. What a subject's own description calls it is added per subject."""

_SPECIES = {
    word: words.split()[0]
    for words in (
        "dog puppy pup doggy hound canine retriever labrador terrier shepherd poodle bulldog corgi husky"
        " beagle spaniel collie dachshund",
        "cat kitten kitty feline tabby",
        "horse pony mare stallion foal steed",
        "car automobile sedan hatchback",
    )
    for word in words.split()
}
"""Words that stand for the same animal or vehicle, whichever of them its description has."""

PRONOUNS: dict[str, Noun] = {
    **{w: Noun(gender=MALE) for w in ("he", "him", "his", "himself")},
    **{w: Noun(gender=FEMALE) for w in ("she", "her", "hers", "herself")},
    **{w: Noun(plural=True, anything=True) for w in ("they", "them", "their", "theirs", "themselves")},
    **{w: Noun() for w in ("it", "its", "itself")},
}
"""Third-person pronouns. Relative ones (`[Person B], who nods`) are bound to the label before them."""
THINGS = frozenset(["it", "its", "itself"])

DEFINITE = _words("the this that these those both said same")
INDEFINITE = _words("a an another some any no other several many few every each unseen")
NUMBERS = _words("two three four five six both")
STOPS = _words(
    "and or but while as with in on at of by from to into onto over under near beside behind before after"
    " is are was were has have then when where who which that's"
)
"""Words that end a noun phrase, seen from its noun."""
COPULAS = _words("is are was were be being remains remain becomes become")

_EMPTY_IT = re.compile(
    r"(?i)\bit(?:'s| is| was| has been| gets| grows| becomes| begins to| starts to| keeps| will| may)?"
    r" (?:\w+ly |still |now |about to |very |too |almost |already )*"
    r"(?:rain|snow|hail|drizzl|pour|thunder|storm|sleet|dark|night|day|dawn|dusk|noon|morning|evening|midnight"
    r"|winter|summer|spring|autumn|sunny|cloudy|foggy|misty|windy|cold|warm|hot|late|early|time\b|clear that"
    r"|evident|possible|impossible|seems?\b|appears?\b|turns out|looks (?:as|like)|\w+ that\b)\w*"
)
"""`it` that stands for nothing: weather, time, `it seems`."""
_WRITTEN = re.compile(
    "\"[^\"]{0,400}\"|\u201c[^\u201c\u201d]{0,400}\u201d|(?<!\\w)['\u2018][^'\u2018\u2019]{1,200}['\u2019](?!\\w)"
)
"""Text in quotation marks: what a sign says or somebody speaks names nobody."""
_TOKEN = re.compile(r"\[[^\[\]]*\]|[A-Za-z]+(?:-[A-Za-z]+)*|[.!?;:,]")
# A verb or the first half of a compound, never somebody: the word and what follows it.
_NOT_A_NOUN = {
    "figure": {"out", "of", "eight", "skater", "skating"},
    "figures": {"out", "of"},
    "subject": {"to", "line", "matter"},
    "subjects": {"to"},
    "character": {"design", "set", "sheet"},
    "baby": {"blue", "pink", "carriage", "stroller", "bottle", "grand"},
    "child": {"seat"},
    "pair": {"of"},
    "duo": {"of"},
    "trio": {"of"},
    "man": {"the"},
    "latter": {"half", "part", "portion", "section", "stage", "stages", "moments", "shot", "shots"},
    "pet": {"food", "shop", "store", "carrier"},
}
ADJECTIVES = _words("adult male female human two")
"""Nouns only at the end of a phrase: `a young adult man` speaks of a man, `the two doors` of doors."""
_CHILD_WORDS = _words("little child kid toddler baby infant schoolboy schoolgirl")
_ADULT_WORDS = _words("adult man woman gentleman lady elderly old older aged middle-aged bearded")


@dataclass(frozen=True)
class Subject:
    """What a label and its description tell about a subject; None where they leave it open."""

    label: str
    kind: str
    noun: str
    gender: str | None
    age: str | None

    @property
    def human(self) -> bool:
        """Whether words for people can stand for it."""
        return self.kind in ("person", "group") and (self.noun in NOUNS or self.noun not in _NOT_HUMAN)


_NOT_HUMAN = _words("robot droid android puppet doll toy machine creature monster alien statue")


def subject_of(label: str, description: str) -> Subject:
    """Read kind, noun, gender and age off a label such as `[Person A]` and its description."""
    head = head_phrase(description).lower().split() or [""]
    words = set(re.findall(r"[a-z-]+", description.lower()))
    # The head decides; a colour or a coat further on says nothing about its wearer.
    known = [NOUNS[word] for word in head if word in NOUNS]
    genders = [n.gender for n in known if n.gender]
    age = next((a for a, some in ((CHILD, _CHILD_WORDS), (ADULT, _ADULT_WORDS)) if set(head) & some), None)
    gender = genders[-1] if genders else None
    if gender is None and words & {"beard", "bearded", "moustache", "mustache"}:
        gender = MALE
    return Subject(
        label=label, kind=label.strip("[]").split(" ")[0].lower(), noun=head[-1], gender=gender, age=age
    )


def could_mean(noun: Noun, subject: Subject) -> bool:
    """Whether a word can stand for a subject, number aside."""
    if noun.creature:
        return not subject.human and subject.kind != "vehicle"
    if not noun.anything and not subject.human:
        return False
    if noun.gender and subject.gender and noun.gender != subject.gender:
        return False
    return not (noun.age and subject.age and noun.age != subject.age)


@dataclass(frozen=True)
class Vague:
    """A word that leaves open who is meant.

    Attributes:
        phrase: as it stands in the text: `the old man`, `he`.
        candidates: labels it could stand for.
        pronoun: else it is a noun.
        position: of the word in the text.
    """

    phrase: str
    candidates: tuple[str, ...]
    pronoun: bool
    position: int


def without_quotations(text: str) -> str:
    """The text with what stands in quotation marks blanked out, at the same length."""
    return _WRITTEN.sub(lambda m: " " * len(m.group()), text)


def vague_references(text: str, cast: Inventory) -> list[Vague]:
    """Pronouns and generic nouns that may stand for a labelled subject, in order.

    Args:
        text: a caption that names subjects by label.
        cast: the labelled subjects that can be meant, with their descriptions: those in view for a shot.
    """
    subjects = [subject_of(label, description) for label, description in cast]
    shown = without_quotations(text)
    shown = _EMPTY_IT.sub(lambda m: "-" * 2 + " " * (len(m.group()) - 2), shown)
    tokens = list(_TOKEN.finditer(shown))
    named, found = set(labels(text)), []
    introduced: set[str] = set()
    for i, token in enumerate(tokens):
        word = token.group().lower()
        if word in PRONOUNS:
            candidates = _pronoun_candidates(word, subjects)
            phrase = token.group()
        else:
            candidates = _noun_candidates(i, tokens, subjects, named, introduced)
            phrase = shown[tokens[_phrase_start(i, tokens)].start() : token.end()]
        if candidates:
            found.append(Vague(phrase, tuple(candidates), word in PRONOUNS, token.start()))
    return found


def _pronoun_candidates(word: str, subjects: Sequence[Subject]) -> list[str]:
    if word in THINGS:
        return [s.label for s in subjects if not s.human]
    noun = PRONOUNS[word]
    if noun.plural:
        # A lone man or woman is no `they`: it stands for songbirds or shoes.
        one = [s for s in subjects if s.kind == "group" or (s.human and s.gender is None)]
        return [s.label for s in (subjects if len(subjects) > 1 else one)]
    # Animals and robots are `he` or `she` in stories.
    return [
        s.label
        for s in subjects
        if s.kind != "vehicle" and not (s.gender and noun.gender and s.gender != noun.gender)
    ]


def _noun_candidates(
    i: int,
    tokens: Sequence[re.Match[str]],
    subjects: Sequence[Subject],
    named: Collection[str],
    introduced: set[str],
) -> list[str]:
    word = tokens[i].group().lower()
    following = tokens[i + 1].group().lower() if i + 1 < len(tokens) else ""
    if following in _NOT_A_NOUN.get(word, ()) or LABEL.fullmatch(tokens[i].group()):
        return []
    if word in ADJECTIVES and following[:1].isalpha() and following not in STOPS:
        return []
    start = _phrase_start(i, tokens)
    if _is_told_of_a_label(start, tokens):
        return []
    lead = [t.group().lower() for t in tokens[start:i]]
    fitting = [s for s in subjects if _fits(word, s)]
    noun = NOUNS.get(word, Noun())
    if noun.plural and len(fitting) < 2 and not any(s.kind == "group" for s in fitting):
        return []
    if noun.crowd and not NUMBERS & set(lead):
        return []
    unnamed = [s.label for s in fitting if s.label not in named]
    definite = bool(lead) and lead[0] in DEFINITE and not (INDEFINITE - {"other"}) & set(lead)
    if definite and word in introduced:
        return []
    if definite and not noun.role and "other" not in lead:
        return [s.label for s in fitting]
    if not definite:
        introduced.add(word)
        if {"another", "no"} & set(lead) or noun.role:
            return []
    return unnamed


def _fits(word: str, subject: Subject) -> bool:
    """Whether a noun, generic or the one of the subject's own description or label, can mean the subject."""
    if word in NOUNS:
        return could_mean(NOUNS[word], subject)
    own = {subject.noun, subject.kind}
    if not subject.human and word in _SPECIES and _SPECIES[word] == _SPECIES.get(subject.noun):
        return True
    return word in own and bool(word)


def _is_told_of_a_label(start: int, tokens: Sequence[re.Match[str]]) -> bool:
    """Whether the phrase says what a label is: `[Person A] is the main subject`."""
    if not start or tokens[start - 1].group().lower() not in COPULAS:
        return False
    before = [t.group() for t in tokens[:start]]
    sentence = next((k for k in range(start - 1, -1, -1) if before[k] in ".!?;"), 0)
    return any(LABEL.fullmatch(word) for word in before[sentence:])


def _phrase_start(i: int, tokens: Sequence[re.Match[str]]) -> int:
    """Index of the determiner of the noun at `i`, at most five words before it; `i` if there is none."""
    for at in range(i - 1, max(-1, i - 6), -1):
        word = tokens[at].group().lower()
        if word in DEFINITE | INDEFINITE | NUMBERS:
            before = tokens[at - 1].group().lower() if at else ""
            return at - 1 if before in DEFINITE | INDEFINITE | NUMBERS else at
        if word in STOPS or (not word[0].isalpha() and word != ","):
            break
    return i
