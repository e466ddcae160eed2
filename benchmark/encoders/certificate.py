"""Does this installation give the reference numbers? Small towers and made-up frames against kept features.

No weights are needed: the towers are the real ones' code at a small size, with numbers made from a seed. What
is expected of them is a file of the package:

    tokens, ViCLIP's text features   computed by ViCLIP's published code
    ViCLIP's clip features           by our tower, at a moment when it gave the published code's numbers
    CLIP, DINOv2                     by transformers' implementations with the same numbers
    pictures                         by Pillow, OpenCV and torchvision
    aesthetic scores                 by the published heads

A wrong activation, filter, mean, precision or version shows here before it shows in a score.
`python -m benchmark.encoders.certificate --write` makes the file again, from a checkout with its tests.
"""

from __future__ import annotations

import functools
import hashlib
import json
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from typing import Any

import numpy as np

from benchmark.encoders import aesthetic, pixels
from benchmark.encoders.memo import Memo
from benchmark.encoders.running import PRECISIONS, exact
from benchmark.encoders.tokenizer import token_table
from curation.optional import MissingExtra
from curation.weights import WeightsDamaged, WeightsMissing

FILE = "certificate.npz"
VERSION = 1
"""Of the file and the checks."""
TOLERANCE = {"fp32": 1e-5, "bf16": 5e-2, "fp16": 5e-3}
"""Of unit features, by precision."""
LEVELS = 1
"""By how many levels of 255 a picture may differ: filters round differently."""
SEED = 7
GRID = 9
"""Every so many pixels of a picture are compared, in both directions."""
PACKAGES = ("torch", "open_clip_torch", "timm", "numpy", "opencv-python-headless", "ftfy")
RECIPES: tuple[pixels.Pixels, ...] = tuple(
    {
        one.pixels.name: one.pixels
        for one in (
            *pixels.VICLIP.values(),
            *(recipe(crop) for recipe in (pixels.clip_recipe, pixels.dinov2_recipe) for crop in pixels.CROPS),
        )
    }.values()
)


@dataclass(frozen=True, kw_only=True)
class Check:
    """One comparison.

    Attributes:
        name: of what is compared.
        drift: largest difference from the reference; NaN if it could not be computed.
        tolerance: largest drift that is in order.
        unit: of both, for people: `features within {} of reference`.
        reason: why it could not be computed.
    """

    name: str
    drift: float
    tolerance: float
    unit: str
    reason: str = ""

    @property
    def ok(self) -> bool:
        """Whether the reference is met; a check that could not be made is not."""
        return self.drift <= self.tolerance

    @property
    def line(self) -> str:
        """For doctor and reports."""
        fault = "" if self.ok else f": WRONG, at most {self.tolerance:g} is in order; scores would be others"
        return f"{self.name}: {self.unit.format(f'{self.drift:.2g}')}{fault}"


FEATURES = "features within {} of reference"
PICTURES = "pictures within {} of 255 levels of reference"


def certificate_lines(device: str = "cpu", precision: str = "fp32") -> list[str]:
    """How far this installation is from reference numbers, for doctor and reports; a line each.

    What could not be checked shares a line with all that lack the same.

    Results are remembered beside the weights as long as the versions of the packages stay the same.

    Args:
        device: torch's name of a device.
        precision: fp32, bf16 or fp16.
    """
    memo, key = Memo("encoder_certificate.json"), _key(device, precision)
    if known := memo.get(key):
        return json.loads(known)
    checks = certificate(device, precision)
    lines = [check.line for check in checks if not check.reason]
    for reason in dict.fromkeys(check.reason for check in checks if check.reason):
        names = [check.name for check in checks if check.reason == reason]
        lines.append(f"not checked ({reason}): {', '.join(names)}")
    if all(check.ok for check in checks):
        memo.put(key, json.dumps(lines))
    return lines


@functools.cache
def certificate(device: str = "cpu", precision: str = "fp32") -> tuple[Check, ...]:
    """All comparisons on a device; see `certificate_lines`."""
    checks = [_tokens(), *map(_pictures, RECIPES), _heads()]
    for name, compute in TOWERS.items():
        unit, tolerance = FEATURES, TOLERANCE[precision]
        checks.append(
            _checked(name, unit, tolerance, functools.partial(_tower, name, compute, device, precision))
        )
    return tuple(checks)


def _key(device: str, precision: str) -> str:
    versions = [f"{package} {_version(package)}" for package in PACKAGES]
    where = [platform.node(), device, precision, f"checks {VERSION}", _kept_hash()]
    return ", ".join([*where, *versions])


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _checked(name: str, unit: str, tolerance: float, drift: Callable[[], float]) -> Check:
    try:
        found, reason = drift(), ""
    except (MissingExtra, WeightsMissing, WeightsDamaged, ModuleNotFoundError) as error:
        found, reason = float("nan"), str(error)
    return Check(name=name, drift=found, tolerance=tolerance, unit=unit, reason=reason)


def _tokens() -> Check:
    def wrong() -> float:
        texts = json.loads(bytes(kept()["texts"]).decode())
        table = token_table(texts, kept()["tokens"].shape[1])
        return float((table != kept()["tokens"]).any(axis=1).sum())

    return _checked("tokenizer", f"{{}} of {len(kept()['tokens'])} texts differ from reference", 0, wrong)


def _pictures(recipe: pixels.Pixels) -> Check:
    def drift() -> float:
        made = sampled(recipe.pictures(frames()))
        return float(np.abs(made.astype(int) - kept()[f"pixels {recipe.name}"]).max())

    return _checked(f"pixels {recipe.name}", PICTURES, LEVELS, drift)


def _heads() -> Check:
    def drift() -> float:
        made = aesthetic.scores(kept()["aesthetic features"])
        return max(float(np.abs(made[kind] - kept()[kind]).max()) for kind in made)

    return _checked("aesthetic heads", "scores within {} of reference", 1e-5, drift)


def _tower(name: str, compute: Callable[[str, str], Any], device: str, precision: str) -> float:
    made_nd = compute(device, precision).float().cpu().numpy().astype(np.float64)
    return float(np.abs(unit(made_nd) - unit(kept()[name].astype(np.float64))).max())


def unit(features_nd: np.ndarray) -> np.ndarray:
    """The same features with length 1."""
    return features_nd / np.linalg.norm(features_nd, axis=1, keepdims=True)


def viclip_clips(device: str, precision: str) -> Any:
    """Features of clips by the small ViCLIP."""
    from benchmark.encoders import tensors, viclip

    tower = tensors.made_up(lambda: viclip.VisionTower(small_viclip()), SEED)
    clips = images(32, 32, device, precision).unflatten(0, (1, 8))
    return _run(tower, clips.expand(1, -1, -1, -1, -1), device, precision)


def viclip_texts(device: str, precision: str) -> Any:
    """Features of the kept texts by the kept text tower."""
    import torch

    from benchmark.encoders import tensors, viclip

    state = {
        name.removeprefix("text_encoder."): torch.from_numpy(array.copy())
        for name, array in kept().items()
        if name.startswith("text_encoder.")
    }
    rows, values = state.pop("token_embedding.rows"), state.pop("token_embedding.values")
    table = torch.zeros(viclip.NUM_TOKENS, values.shape[1])
    table[rows] = values
    state["token_embedding.weight"] = table
    tower = tensors.assembled(lambda: viclip.TextTower(golden_viclip()), state, FILE)
    return _run(tower, torch.from_numpy(kept()["tokens"].astype(np.int64)).to(device), device, precision)


def clip_pictures(device: str, precision: str, *, wide: bool = False) -> Any:
    """Features of pictures by the small CLIP."""
    from benchmark.encoders import clip, tensors

    tower = tensors.made_up(lambda: clip.Clip(small_clip()), SEED)
    return _run(tower, images(64, 112 if wide else 64, device, precision), device, precision)


def dinov2_pictures(device: str, precision: str, *, wide: bool = False) -> Any:
    """Features of pictures by the small DINOv2; its table of positions is stretched in both."""
    from benchmark.encoders import dinov2, tensors

    tower = tensors.made_up(lambda: dinov2.Dinov2(small_dinov2()), SEED)
    return _run(tower, images(56, 98 if wide else 56, device, precision), device, precision)


TOWERS: dict[str, Callable[[str, str], Any]] = {
    "viclip": viclip_clips,
    "viclip texts": viclip_texts,
    "clip": clip_pictures,
    "clip full": functools.partial(clip_pictures, wide=True),
    "dinov2": dinov2_pictures,
    "dinov2 full": functools.partial(dinov2_pictures, wide=True),
}


def small_viclip() -> Any:
    """Shape of the small ViCLIP."""
    from benchmark.encoders.viclip import Shape

    return Shape(
        size=32,
        patch=16,
        width=48,
        layers=2,
        heads=4,
        features=32,
        text_width=40,
        text_layers=2,
        text_heads=5,
    )


def golden_viclip() -> Any:
    """Shape of the ViCLIP whose features the published code computed."""
    from dataclasses import replace

    return replace(small_viclip(), size=224)


def small_clip() -> Any:
    """Shape of the small CLIP."""
    from benchmark.encoders.clip import Shape

    return Shape(size=64, patch=32, width=64, layers=2, heads=4, features=32)


def small_dinov2() -> Any:
    """Shape of the small DINOv2."""
    from benchmark.encoders.dinov2 import Shape

    return Shape(size=70, width=48, layers=2, heads=4)


def images(height: int, width: int, device: str, precision: str) -> Any:
    """Eight pictures as a tower reads them, [8, 3, height, width]; no two alike."""
    import torch

    levels = np.stack(
        [frame[17 : 17 + height, 5 + 40 * i : 5 + 40 * i + width] for i, frame in enumerate(frames(8))]
    )
    values = torch.from_numpy(levels).permute(0, 3, 1, 2).float() / 127.5 - 1
    return values.to(device, getattr(torch, PRECISIONS[precision]))


def _run(tower: Any, inputs: Any, device: str, precision: str) -> Any:
    import torch

    with exact():
        return tower.to(device, getattr(torch, PRECISIONS[precision]))(inputs)


@functools.cache
def frames(count: int = 2) -> np.ndarray:
    """Frames made by code, uint8 [count, 480, 832, 3]: ramps, stripes, squares and edges that move."""
    y, x = np.mgrid[0:480, 0:832]
    made = []
    for t in range(count):
        ramp = (x * 255 // 831 + 13 * t) % 256
        stripes = ((x + y + 5 * t) % 7 < 3) * 200 + 20
        squares = (((x + 11 * t) // 16 + y // 16) % 2) * 255
        red = np.where(y < 240, ramp, stripes)
        green = np.where(x < 416, squares, (y * 255 // 479))
        blue = np.where((x - 300 - 20 * t) ** 2 + (y - 240) ** 2 < 150**2, 255, (x * y // 97) % 256)
        made.append(np.stack([red, green, blue], axis=-1))
    whole = np.stack(made).astype(np.uint8)
    whole.flags.writeable = False  # it is kept
    return whole


def sampled(pictures_thwc: np.ndarray) -> np.ndarray:
    """The pixels of pictures that are compared."""
    return pictures_thwc[:, ::GRID, ::GRID]


@functools.cache
def kept() -> dict[str, np.ndarray]:
    """The reference numbers."""
    path = files("benchmark.encoders") / "data" / FILE
    with path.open("rb") as file, np.load(file, allow_pickle=False) as loaded:
        return dict(loaded)


@functools.cache
def _kept_hash() -> str:
    return hashlib.sha256((files("benchmark.encoders") / "data" / FILE).read_bytes()).hexdigest()[:12]


if __name__ == "__main__":
    from benchmark.encoders import certificate_file

    certificate_file.main()
