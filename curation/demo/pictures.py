"""The photographs of the demo film: where they lie, who made them, under which licence.

All of them ship inside the scikit-image wheel; nothing is downloaded. Licences as stated in the docstrings
of `skimage.data` (version 0.26):

| file | what | licence |
|---|---|---|
| astronaut.png | Eileen Collins, NASA Great Images | public domain, no known copyright restrictions |
| camera.png | a cameraman, by Lav Varshney | CC0 |
| chelsea.png | Chelsea the cat, by Stefan van der Walt | CC0 |
| coffee.png | a cup of coffee, by Rachel Michetti | CC0 |
| rocket.jpg | Falcon 9 on its pad, by SpaceX | public domain |
| hubble_deep_field.jpg | Hubble eXtreme Deep Field, NASA | public domain |
| retina.jpg | fundus of an eye, by Mikael Haggstrom | CC0 |
| brick.png | brick wall, CC0Textures | CC0 |
| gravel.png | gravel, CC0Textures | CC0 |

The persons shown neither took part in the film nor endorse it.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A photograph that the film uses."""

    file: str
    title: str
    author: str
    licence: str


PICTURES = (
    Picture(
        file="astronaut.png",
        title="Eileen Collins",
        author="NASA",
        licence="public domain (no known copyright restrictions)",
    ),
    Picture(file="camera.png", title="Cameraman", author="Lav Varshney", licence="CC0"),
    Picture(file="chelsea.png", title="Chelsea", author="Stefan van der Walt", licence="CC0"),
    Picture(file="coffee.png", title="Coffee cup", author="Rachel Michetti", licence="CC0"),
    Picture(file="rocket.jpg", title="Rocket", author="SpaceX", licence="public domain"),
    Picture(
        file="hubble_deep_field.jpg",
        title="Hubble eXtreme Deep Field",
        author="NASA",
        licence="public domain",
    ),
    Picture(file="retina.jpg", title="Retina", author="Mikael Haggstrom", licence="CC0"),
    Picture(file="brick.png", title="Brick wall", author="CC0Textures", licence="CC0"),
    Picture(file="gravel.png", title="Gravel", author="CC0Textures", licence="CC0"),
)


def load(file: str) -> np.ndarray:
    """The picture as uint8 [H, W, 3] BGR.

    Raises:
        FileNotFoundError: scikit-image is not installed, or its wheel no longer carries the picture.
    """
    import cv2

    spec = find_spec("skimage")
    places = list(spec.submodule_search_locations or []) if spec else []
    path = Path(places[0]) / "data" / file if places else Path(file)
    if not path.is_file():
        raise FileNotFoundError(
            f"the demo film needs {file} from scikit-image; install it with: "
            "uv pip install --reinstall 'scikit-image>=0.24,<0.27'"
        )
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert picture is not None, path
    return picture


# Outlines in pixels of the pictures, traced once with a graph cut and corrected by hand.

# fmt: off
ASTRONAUT_HEAD = (
    (193, 29), (191, 33), (185, 38), (174, 43), (163, 51), (156, 58), (153, 68), (154, 92), (157, 104),
    (167, 115), (170, 121), (174, 128), (181, 132), (183, 145), (185, 160), (186, 174), (189, 182),
    (200, 187), (215, 190), (235, 191), (248, 188), (254, 180), (255, 170), (257, 160), (261, 151),
    (266, 139), (274, 133), (280, 127), (290, 117), (294, 111), (300, 92), (299, 72), (296, 60), (288, 43),
    (276, 31), (262, 24), (248, 18), (238, 17), (227, 16), (214, 21), (205, 21),
)
ASTRONAUT_BODY = (
    (183, 153), (166, 154), (154, 157), (145, 162), (137, 170), (134, 176), (124, 177), (121, 183),
    (119, 190), (114, 190), (114, 199), (104, 213), (90, 227), (76, 235), (62, 250), (50, 271), (43, 287),
    (40, 293), (39, 305), (33, 322), (29, 334), (26, 345), (25, 373), (21, 390), (20, 419), (24, 432),
    (23, 460), (26, 484), (30, 495), (37, 503), (40, 511), (511, 511), (511, 500), (507, 485), (504, 460),
    (498, 440), (494, 426), (489, 409), (480, 390), (467, 372), (455, 361), (436, 351), (419, 345),
    (393, 344), (381, 345), (365, 349), (361, 344), (360, 328), (356, 302), (352, 287), (346, 275),
    (340, 263), (319, 243), (312, 240), (303, 233), (299, 219), (289, 203), (276, 189), (256, 174),
    (240, 166), (220, 160), (200, 156),
)
ROCKET = (
    (318, 130), (314, 135), (311, 144), (311, 184), (314, 188), (314, 406), (330, 406), (330, 188),
    (333, 184), (333, 144), (331, 137), (326, 130), (322, 127),
)
CAMERAMAN = (
    (0, 256), (10, 246), (17, 230), (31, 214), (40, 195), (54, 176), (59, 164), (68, 151), (77, 142),
    (96, 132), (112, 127), (130, 125), (140, 114), (152, 106), (161, 106), (164, 98), (172, 87), (186, 73),
    (192, 69), (209, 67), (221, 67), (240, 74), (255, 90), (263, 102), (269, 112), (269, 130), (272, 140),
    (328, 139), (330, 165), (332, 190), (318, 220), (300, 280), (250, 312), (207, 295), (180, 330),
    (140, 380), (151, 511), (0, 511),
)
CAMERAMAN_FACE = (
    (184, 126), (200, 128), (212, 132), (234, 128), (250, 138), (249, 150), (252, 168), (244, 176),
    (245, 186), (228, 194), (205, 188), (196, 165), (180, 152), (178, 134),
)
# fmt: on
ASTRONAUT_NECK = (218, 180)  # the head turns about this point
ASTRONAUT_FACE = (180, 70, 90, 108)  # x, y, width, height
CAT_FACE = (222, 150, 148)  # x and y of the centre, radius
