"""The screenplay of the demo film: shots, camera moves, who stands where, subtitles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from curation.demo.cast import Gains, Pose

FPS = 24
DISSOLVE_FRAMES = 24
FADE_OUT_FRAMES, BLACK_FRAMES, FADE_IN_FRAMES = 20, 8, 20
LOGO = "MEMENTO"


@dataclass(frozen=True)
class View:
    """The camera: the pixel of the set in the middle of the picture, picture pixels per set pixel."""

    x: float
    y: float
    zoom: float


@dataclass(frozen=True, kw_only=True)
class Part:
    """A puppet in a shot: it moves from pose to pose; `bob` is its slow heave in pixels."""

    puppet: Literal["astronaut", "cat"]
    start: Pose
    end: Pose
    flip: bool = False
    bob: float = 2.0


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A shot.

    Attributes:
        name: for people.
        frames: length at full visibility, transitions excluded.
        place: the function of `curation.demo.sets` that makes it.
        camera: the first and the last view.
        parts: puppets, the farthest first.
        effect: a class of `curation.demo.effects`.
        light: gains of blue, green and red on the puppets, to match the place.
        transition_in: how the shot before gives way to it.
        fault: what is wrong with the shot on purpose.
    """

    name: str
    frames: int
    place: str
    camera: tuple[View, View]
    parts: tuple[Part, ...] = ()
    effect: Literal["Launch", "Steam"] | None = None
    light: Gains = (1.0, 1.0, 1.0)
    transition_in: Literal["start", "cut", "fade", "dissolve"] = "cut"
    fault: Literal["dark", "frozen"] | None = None


@dataclass(frozen=True, kw_only=True)
class Line:
    """A subtitle: seconds from the first full frame of a shot, may run into the next one."""

    shot: str
    start_s: float
    end_s: float
    text: str
    bottom: int = 449  # the row below its lowest pixel in the coded frame


EVENING = (0.86, 0.80, 0.82)
LOW = 470  # partly in the lower bar
DUSK, DAY, HAZE, STARS = (0.92, 0.80, 0.80), (0.98, 0.98, 0.96), (0.78, 0.88, 1.0), (1.0, 0.94, 0.92)

SHOTS = (
    Shot(
        name="launch pad",
        frames=138,
        place="pad",
        camera=(View(640, 560, 0.80), View(590, 545, 0.86)),
        parts=(
            Part(
                puppet="astronaut",
                start=Pose(x=300, y=440, scale=0.62),
                end=Pose(x=285, y=440, scale=0.65),
            ),
        ),
        light=DUSK,
        transition_in="start",
    ),
    Shot(
        name="hangar",
        frames=134,
        place="hangar",
        camera=(View(690, 330, 0.90), View(1010, 330, 0.90)),
        parts=(
            Part(
                puppet="astronaut",
                start=Pose(x=300, y=440, scale=0.59),
                end=Pose(x=500, y=440, scale=0.61),
                bob=5,
            ),
        ),
        light=(0.88, 0.92, 1.0),
    ),
    Shot(
        name="portrait",
        frames=130,
        place="portrait",
        camera=(View(440, 244, 1.00), View(440, 252, 1.14)),
    ),
    Shot(
        name="interview",
        frames=142,
        place="park",
        camera=(View(512, 352, 0.86), View(500, 348, 0.89)),
        parts=(
            Part(
                puppet="astronaut",
                start=Pose(x=606, y=440, scale=0.54),
                end=Pose(x=596, y=440, scale=0.56),
                flip=True,
                bob=3,
            ),
        ),
        light=DAY,
    ),
    Shot(
        name="coffee",
        frames=128,
        place="table",
        camera=(View(590, 370, 0.86), View(600, 395, 0.74)),
        effect="Steam",
    ),
    Shot(
        name="the cat at home",
        frames=130,
        place="home",
        camera=(View(545, 418, 0.80), View(552, 405, 0.92)),
    ),
    Shot(
        name="walk to the pad",
        frames=140,
        place="pad",
        camera=(View(990, 700, 1.25), View(860, 690, 1.25)),
        parts=(
            Part(
                puppet="astronaut",
                start=Pose(x=540, y=442, scale=0.74),
                end=Pose(x=390, y=442, scale=0.70),
                flip=True,
                bob=6,
            ),
        ),
        light=DUSK,
    ),
    Shot(
        name="night",
        frames=84,
        place="hangar",
        camera=(View(560, 330, 0.90), View(600, 330, 0.90)),
        parts=(
            Part(
                puppet="astronaut",
                start=Pose(x=420, y=440, scale=0.66),
                end=Pose(x=440, y=440, scale=0.66),
            ),
        ),
        fault="dark",
    ),
    Shot(
        name="photograph",
        frames=84,
        place="hangar",
        camera=(View(1340, 474, 0.97), View(1340, 474, 0.97)),
        parts=(
            Part(
                puppet="astronaut",
                start=Pose(x=300, y=440, scale=0.70),
                end=Pose(x=300, y=440, scale=0.70),
            ),
            Part(
                puppet="cat",
                start=Pose(x=600, y=230, scale=0.46, angle=6),
                end=Pose(x=600, y=230, scale=0.46, angle=6),
            ),
        ),
        light=(0.9, 0.94, 1.0),
        fault="frozen",
    ),
    Shot(
        name="launch",
        frames=136,
        place="empty_pad",
        camera=(View(704, 592, 0.63), View(704, 345, 0.63)),
        effect="Launch",
        transition_in="fade",
    ),
    Shot(
        name="cabin",
        frames=140,
        place="cabin",
        camera=(View(590, 285, 0.95), View(770, 285, 0.95)),
        parts=(
            Part(
                puppet="astronaut",
                start=Pose(x=285, y=442, scale=0.70, angle=-1),
                end=Pose(x=300, y=442, scale=0.72, angle=2),
            ),
            Part(
                puppet="cat",
                start=Pose(x=620, y=300, scale=0.34, angle=-8),
                end=Pose(x=590, y=262, scale=0.38, angle=8),
                bob=8,
            ),
        ),
        light=(1.0, 0.95, 0.92),
    ),
    Shot(
        name="the cat among the stars",
        frames=130,
        place="space",
        camera=(View(620, 640, 0.80), View(760, 620, 0.80)),
        parts=(
            Part(
                puppet="cat",
                start=Pose(x=290, y=250, scale=0.50, angle=-12),
                end=Pose(x=560, y=205, scale=0.62, angle=10),
                bob=5,
            ),
        ),
        light=STARS,
    ),
    Shot(
        name="orbit",
        frames=132,
        place="orbit",
        camera=(View(800, 690, 0.74), View(900, 680, 0.80)),
        parts=(
            Part(
                puppet="astronaut",
                start=Pose(x=310, y=458, scale=0.76, angle=-4),
                end=Pose(x=340, y=452, scale=0.80, angle=3),
                bob=5,
            ),
        ),
        light=STARS,
        transition_in="dissolve",
    ),
    Shot(
        name="on the red planet",
        frames=144,
        place="mars",
        camera=(View(690, 470, 0.85), View(790, 462, 0.87)),
        parts=(
            Part(
                puppet="cat",
                start=Pose(x=640, y=255, scale=0.38, angle=5),
                end=Pose(x=590, y=250, scale=0.46, angle=-7),
                bob=14,
            ),
            Part(
                puppet="astronaut",
                start=Pose(x=275, y=446, scale=0.68),
                end=Pose(x=300, y=446, scale=0.72),
                bob=6,
            ),
        ),
        light=HAZE,
    ),
    Shot(
        name="the cat up close",
        frames=128,
        place="far_mars",
        camera=(View(620, 430, 1.00), View(600, 405, 1.06)),
        parts=(
            Part(
                puppet="cat",
                start=Pose(x=400, y=222, scale=0.74, angle=-5),
                end=Pose(x=435, y=216, scale=0.84, angle=5),
                bob=6,
            ),
        ),
        light=EVENING,
    ),
    Shot(
        name="farewell",
        frames=138,
        place="orbit",
        camera=(View(560, 470, 0.92), View(500, 520, 0.84)),
        parts=(
            Part(
                puppet="astronaut",
                start=Pose(x=420, y=630, scale=1.20, angle=2),
                end=Pose(x=430, y=540, scale=0.98, angle=-3),
                flip=True,
                bob=4,
            ),
        ),
        light=STARS,
    ),
)

LINES = (
    Line(shot="launch pad", start_s=0.8, end_s=3.8, text="Six hours to launch."),
    Line(shot="hangar", start_s=0.5, end_s=2.7, text="The suit fits."),
    Line(shot="hangar", start_s=3.1, end_s=5.2, text="The cat is late again."),
    Line(
        shot="portrait",
        start_s=0.9,
        end_s=4.6,
        text="They asked what I would miss\nmost of all. I said: breakfast.",
    ),
    Line(shot="interview", start_s=0.5, end_s=2.7, text="Look this way, please!", bottom=LOW),
    Line(shot="interview", start_s=3.1, end_s=5.4, text="Wonderful. One more.", bottom=LOW),
    Line(shot="coffee", start_s=1.0, end_s=4.2, text="One last coffee on Earth."),
    Line(shot="the cat at home", start_s=0.8, end_s=4.4, text="Chelsea packed nothing at all."),
    Line(shot="walk to the pad", start_s=1.0, end_s=4.8, text="Then it was time to go."),
    Line(shot="launch", start_s=1.2, end_s=4.4, text="Lift-off!"),
    Line(shot="cabin", start_s=0.5, end_s=2.8, text="Are you all right in there?"),
    Line(shot="cabin", start_s=3.2, end_s=5.5, text="I will take that as a yes."),
    Line(
        shot="the cat among the stars",
        start_s=0.8,
        end_s=4.8,
        text="Far away from every sofa\nshe had ever slept on.",
    ),
    Line(shot="orbit", start_s=0.8, end_s=4.4, text="Nobody had come this far before."),
    Line(
        shot="on the red planet",
        start_s=0.6,
        end_s=3.2,
        text="One small step for me ...",
        bottom=LOW,
    ),
    Line(
        shot="on the red planet",
        start_s=4.0,
        end_s=7.6,
        text="... and one long nap for her.",
        bottom=LOW,
    ),
    Line(shot="farewell", start_s=0.9, end_s=4.8, text="We shall be home for breakfast."),
)
