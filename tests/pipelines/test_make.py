"""The Makefile installs and downloads what was asked for and nothing else; its tools are stubs here."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
STUB = '#!/bin/sh\necho "$(basename "$0") $*" >> "$CALLS"\n'


def make(tmp_path: Path, *arguments: str, card: bool = False) -> list[str]:
    """What `make` ran, one line a call."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    tools = tmp_path / "venv" / "bin"
    tools.mkdir(parents=True)
    for name in ("python", "uv", "memento"):
        (tools / name).write_text(STUB)
    path = tmp_path / "path"
    path.mkdir()
    (path / "nvidia-smi").write_text("#!/bin/sh\n" + ("echo 'GPU 0: some card'\n" if card else "exit 9\n"))
    for file in (*tools.iterdir(), *path.iterdir()):
        file.chmod(0o755)
    calls = tmp_path / "calls"
    environment = {**os.environ, "CALLS": str(calls), "PATH": f"{path}:{os.environ['PATH']}"}
    for name in ("MAKEFLAGS", "MFLAGS", "RECIPE", "TIER", "EXTRAS", "FILMS", "VENV"):
        environment.pop(name, None)
    subprocess.run(
        ["make", "-C", str(REPOSITORY), f"VENV={tmp_path / 'venv'}", *arguments],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return [line for line in calls.read_text().splitlines() if not line.startswith("python")]


def extras(calls: list[str]) -> list[str]:
    return [line.rsplit(".[", 1)[1].rstrip("]") for line in calls if line.startswith("uv")]


def rest(calls: list[str]) -> list[str]:
    return [line for line in calls if line.startswith("memento")]


def test_without_a_tier_nothing_is_downloaded(tmp_path):
    calls = make(tmp_path, "curate", "FILMS=/films")
    assert extras(calls) == ["dev"]
    assert rest(calls) == ["memento curate /films"]


def test_full_tier_of_curate_installs_fetches_and_uses(tmp_path):
    calls = make(tmp_path, "curate", "TIER=full", "FILMS=a film.mp4", "PRESET=bridged")
    assert extras(calls) == ["dev,shots,aesthetic"]
    assert rest(calls) == [
        "memento weights pull yolox_nano osnet_x0_25 face_yunet mobilefacenet clip-l14",
        "memento curate a film.mp4 --set shots.boundary=auto --preset bridged",
    ]


def test_captions_by_a_model_come_where_there_is_a_card(tmp_path):
    calls = make(tmp_path, "curate", "TIER=full", card=True)
    assert extras(calls) == ["dev,shots,aesthetic,caption"]
    assert rest(calls)[0].endswith("clip-l14 qwen3_vl_8b")


@pytest.mark.parametrize(
    ("target", "extra", "pulled"),
    [
        ("train", "train", "wan22_i2v_a14b"),
        ("generate", "train", "wan22_i2v_a14b wan22_t2v_a14b memento"),
        ("eval", "eval", "--eval memento"),
    ],
)
def test_full_tier_of_the_other_targets(target, extra, pulled, tmp_path):
    calls = make(tmp_path, target, "TIER=full", "METHODS=a=dir", "RECIPE=low_noise_480p")
    assert extras(calls) == [f"dev,{extra}"]
    assert rest(calls)[0] == f"memento weights pull {pulled}"
    assert rest(calls)[1].startswith(f"memento {target}")


def test_everything_that_is_pulled_has_its_line_in_the_tables():
    from pipelines.weights_command import models

    names = {model.name for model in models()}
    lines = (REPOSITORY / "Makefile").read_text().splitlines()
    pulled = [line.split(":=")[1] for line in lines if line.startswith("WEIGHTS_")]
    words = " ".join(pulled).replace("$(if $(GPU),", " ").replace(")", " ").replace("--eval memento", "")
    assert len(pulled) == 4
    assert set(words.split()) <= names


def test_another_tier_is_refused_in_one_line(tmp_path):
    with pytest.raises(subprocess.CalledProcessError) as caught:
        make(tmp_path, "curate", "TIER=best")
    assert caught.value.stderr.strip().endswith("TIER is 'best': say TIER=full, or leave it out.  Stop.")


@pytest.mark.parametrize("recipe", [(), ("RECIPE=debug",)])
def test_weights_are_not_fetched_for_a_recipe_that_has_no_use_for_them(recipe, tmp_path):
    with pytest.raises(subprocess.CalledProcessError) as caught:
        make(tmp_path, "train", "TIER=full", *recipe)
    (line,) = caught.value.stderr.strip().splitlines()
    assert "say RECIPE=high_noise_480p and then RECIPE=low_noise_480p, or leave TIER out" in line
    assert not (tmp_path / "calls").exists()


@pytest.mark.parametrize(
    ("backend", "told"),
    [
        ("cpu", "getting torch: its build for CPUs (0.2 GB)"),
        ("cu128", "getting torch: its build for cu128"),
        ("", "getting torch: 2.7 GB with all that NVIDIA GPUs need; without one stop here and say UV_TORCH"),
        (
            None,
            "getting torch: 2.7 GB with all that NVIDIA GPUs need; without one stop here and say UV_TORCH",
        ),
    ],
)
def test_what_is_fetched_is_said_and_an_empty_choice_is_none(backend, told, tmp_path):
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    tools = tmp_path / "venv" / "bin"
    tools.mkdir(parents=True)
    (tools / "python").write_text('#!/bin/sh\ncase "$*" in *find_spec*) exit 1;; esac\n')
    (tools / "uv").write_text('#!/bin/sh\necho "uv has: ${UV_TORCH_BACKEND-none}"\n')
    for file in tools.iterdir():
        file.chmod(0o755)
    without = ("MAKEFLAGS", "MFLAGS", "TIER", "EXTRAS", "UV_TORCH_BACKEND")
    environment = {name: value for name, value in os.environ.items() if name not in without}
    if backend is not None:
        environment["UV_TORCH_BACKEND"] = backend
    made = subprocess.run(
        ["make", "-C", str(REPOSITORY), f"VENV={tools.parent}", "setup-train"],
        env=environment, check=True, capture_output=True, text=True,
    )  # fmt: skip
    (line,) = [line for line in made.stdout.splitlines() if line.startswith("getting torch")]
    assert line.startswith(told)
    assert ("stop here" in line) == (not backend)
    assert f"uv has: {backend or 'none'}" in made.stdout
