"""What `memento curate` prints: the table of `--explain`, and the table of what was packed and published."""

from __future__ import annotations

import io
import os
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from curation.engine.explain import Forecast
from curation.engine.runner import Outcome
from curation.engine.stage import StopRun
from curation.publishing.publish import PublishReport
from pipelines.curate import Report, claim, dataset_name, forecast, prepare, resolve
from pipelines.curate_command import (
    cost_line,
    more_by_preset,
    not_known,
    nothing_kept,
    packing_table,
    show_forecast,
    why,
)

SUMMARY = {
    "presets": [{"preset": "bridged", "sequences": 4, "seconds": 226.1, "share": 0.445}],
    "packed": {"sequences": 4, "seconds": 226.1, "share": 0.445},
    "published": {"sequences": 3, "seconds": 163.8, "share": 0.32},
}


def printed(*things) -> str:
    console = Console(file=io.StringIO(), width=120)
    for thing in things:
        console.print(thing)
    return console.file.getvalue()


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("│┃ \n").replace("┃", "│").split("│")]


def test_what_was_packed_stands_beside_what_was_published() -> None:
    rows = [cells(line) for line in printed(packing_table(SUMMARY, "bridged")).splitlines()]
    assert ["bridged would pack", "4", "226.1", "44%"] in rows
    assert ["this run packed (bridged)", "4", "226.1", "44%"] in rows
    assert ["after them: published", "3", "163.8", "32%"] in rows


def test_a_share_of_nothing_is_a_dash() -> None:
    nothing = {"sequences": 0, "seconds": 0.0, "share": None}
    rows = printed(packing_table({"presets": [], "packed": nothing, "published": nothing}, "bridged"))
    assert ["after them: published", "0", "0.0", "-"] in [cells(line) for line in rows.splitlines()]


def packing(**seconds) -> dict:
    """What presets would pack of 100 s, and what this run packed."""
    lines = {
        n.replace("_", "-"): {"sequences": 2, "seconds": s, "share": s / 100} for n, s in seconds.items()
    }
    packed = lines.pop("packed")
    return {"presets": [{"preset": n, **line} for n, line in lines.items()], "packed": packed}


def test_a_preset_that_would_keep_clearly_more_is_named_once() -> None:
    summary = packing(paper_text=0.0, paper_table=17.0, bridged=54.0, packed=17.0)
    line = more_by_preset(summary, "paper-table")
    assert line.startswith("Preset bridged would pack 2 sequences, 54% of the footage and not 17%: ")
    assert "--preset bridged (make: PRESET=bridged)" in line
    assert not more_by_preset(packing(paper_table=50.0, bridged=54.0, packed=50.0), "paper-table")
    assert not more_by_preset(packing(bridged=54.0, packed=17.0), "bridged"), "its settings were changed"
    assert not more_by_preset(packing(packed=0.0), "bridged"), "no film at all"


def empty(found: int = 0, *lengths_s: float) -> Report:
    """A run that kept nothing of films so long."""
    job = resolve(["demo"], Path("datasets.yaml"), output=Path("set"))
    tables = {"film": [{"stream": {"duration_s": s}} for s in lengths_s] or [{"stream": None}]}
    summary = packing(bridged=50.0, packed=0.0) | {"sequences": {"kept": 0, "found": found}}
    published = PublishReport(Path("set"), "v", "d", True, summary, ())
    return Report(job, Outcome(tables=tables), published, {"settings": {"sequences": {"min_window_s": 30.0}}})


def test_an_empty_dataset_says_why_in_one_line() -> None:
    told = nothing_kept(empty(0, 6.0))
    assert told == (
        "Nothing was kept: the film lasts 6.0 s, and a sequence at least 30 s (sequences.min_window_s); its "
        "line above says more."
    )
    assert "the longest film lasts 9.0 s" in nothing_kept(empty(0, 6.0, 9.0))
    assert "no run of shots makes a sequence" in nothing_kept(empty(0, 90.0))
    assert "--preset bridged" in nothing_kept(empty(0, 90.0))
    assert "all 3 sequences were rejected after packing" in nothing_kept(empty(3, 90.0))
    assert "no file is a film" in nothing_kept(empty())


def test_what_was_decoded_earlier_is_not_told_as_work_of_this_run() -> None:
    record = {
        "decode_passes": {"not_exported": 1.0, "exported": 3.0},
        "counters": {"scan": {"decoded_s": 9.0}, "crop": {"seconds": 1.0}},
        "rows_made": {"scan": 0, "crop": 2},
        "rows_reused": {"scan": 4},
        "wall_s": 1.2,
    }
    assert cost_line(record) == (
        "nothing decoded (by earlier runs: each second of film once, in sequences 3 times); 1 s of work; "
        "4 results of earlier runs reused"
    )
    first = {**record, "rows_made": {"scan": 4}, "rows_reused": {"scan": 0}}
    assert cost_line(first) == "decoded: each second of film once, in sequences 3 times; 1 s of work"
    nothing = {**first, "decode_passes": {"not_exported": None, "exported": None}, "counters": {}}
    assert cost_line(nothing) == "1 s of work"


@pytest.mark.parametrize(
    ("forecast", "open_", "reason"),
    [
        (Forecast("shots", reused=3), "", "nothing changed"),
        (Forecast("captions", "sequence"), "", "no sequence gets this far"),
        (Forecast("shots", runs=Counter({"new": 3})), "", "new"),
        (
            Forecast("shots", runs=Counter({"new": 3, "setting shots.x: 1 -> 2": 1})),
            "",
            "3 x new; 1 x setting shots.x: 1 -> 2",
        ),
        (Forecast("proof", "sequence", unknown=2, after=("captions",)), "2", "waits for captions"),
        (Forecast("crop", "sequence", unlisted=1, after=("scan",)), "of 1 film", "waits for scan"),
        (
            Forecast("crop", "sequence", reused=1, unknown=2, unlisted=3, after=("scan", "analyse")),
            "2 + of 3 films",
            "waits for scan, analyse",
        ),
    ],
)
def test_each_stage_says_why(forecast: Forecast, open_: str, reason: str) -> None:
    assert (not_known(forecast), why(forecast)) == (open_, reason)


def test_explain_of_nothing_says_so(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=200)
    job = resolve(["demo"], Path("datasets.yaml"), output=tmp_path / "set")
    show_forecast(console, job, [Forecast("ingest"), Forecast("scan", "segment")])
    assert "nothing is here yet" in console.file.getvalue()
    assert "nothing changed" not in console.file.getvalue()


def test_explain_tells_its_columns_and_the_stages_that_always_run(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=200)
    job = resolve(["demo"], Path("datasets.yaml"), output=tmp_path / "set")
    show_forecast(
        console, job, [Forecast("scan", "segment", reused=16), Forecast("shots", unknown=1, after=("x",))]
    )
    text = console.file.getvalue()
    rows = [cells(line) for line in text.splitlines()]
    assert ["stage", "kept", "will run", "not known yet", "why"] in rows
    assert ["scan", "16", "", "", "nothing changed"] in rows
    assert ["shots", "", "", "1", "waits for x"] in rows
    assert "always run: identify, same_film, to_segments, to_films, aesthetic, filters, sequences" in text


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("films/*.mkv", "films"),
        ("films/**/x?.mkv", "films"),
        ("*.mkv", "films"),
        ("a.mp4", "a"),
        ("  my film (final) .mp4", "my film (final)"),
        ("two\nlines.mp4", "two lines"),
        ("a [1] 'x'.mkv", "a [1] 'x'"),
        ("season.1", "season.1"),
        ("season.1/", "season.1"),
        ("..", "here"),
        (".", "inner"),
        ("s3://bucket/more/", "more"),
        ("s3://bucket/more/*.mp4", "more"),
    ],
)
def test_films_without_an_entry_have_a_name_that_a_folder_can_have(source, name, tmp_path, monkeypatch):
    inner = tmp_path / "here" / "inner"
    (inner / "season.1").mkdir(parents=True)
    for file in ("a.mp4", "  my film (final) .mp4", "two\nlines.mp4", "a [1] 'x'.mkv"):
        (inner / file).touch()
    monkeypatch.chdir(inner)
    assert dataset_name([source]) == name
    assert dataset_name([source, "b.mp4"]) == "films"


def test_a_dataset_is_recognised_again_whatever_its_film_is_called(tmp_path):
    film = tmp_path / "  my film (final) .mp4"
    film.touch()
    for _ in range(2):
        claim(resolve([str(film)], Path("datasets.yaml"), output=tmp_path / "set"))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder without a datasets.yaml."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("source", ["demo.mp4", "./demo", "elsewhere/demo/*.mp4"])
def test_films_called_demo_do_not_share_the_demo_datasets_folder(source, here):
    (here / "demo").mkdir()
    (here / "demo.mp4").write_bytes(b"x")
    demo, job = resolve(["demo"], Path("datasets.yaml")), resolve([source], Path("datasets.yaml"))
    assert (demo.name, demo.output, demo.renders_demo) == ("demo", here / "out" / "demo", True)
    assert (job.name, job.output, job.renders_demo) == ("demo_films", here / "out" / "demo_films", False)
    assert "demo is the name of another dataset: this one is called demo_films" in job.notes
    claim(demo)
    claim(job)
    with pytest.raises(StopRun, match="holds the dataset 'demo', not 'demo_films'"):
        claim(resolve([source], Path("datasets.yaml"), output=demo.output))


def test_the_name_of_a_dataset_means_the_dataset_and_says_so_beside_a_folder_of_that_name(here):
    assert not [n for n in resolve(["demo"], Path("datasets.yaml")).notes if "./demo" in n]
    (here / "demo").mkdir()
    job = resolve(["demo"], Path("datasets.yaml"))
    assert job.renders_demo
    assert "demo is the dataset of that name; for the file or folder here write ./demo" in job.notes


def test_films_never_take_the_folder_of_a_dataset_of_datasets_yaml(here):
    """Not even that of an entry that has the next name."""
    entries = "".join(f"  {name}: {{films: /x, licence: CC0}}\n" for name in ("sky", "sky_films"))
    (here / "datasets.yaml").write_text(f"version: 1\ndatasets:\n{entries}")
    assert resolve(["/films/sky.mkv"], Path("datasets.yaml")).name == "sky_films_films"
    assert resolve(["/films/sea.mkv"], Path("datasets.yaml")).name == "sea"


def test_other_films_of_the_same_name_do_not_replace_a_dataset(here):
    films = [here / folder / "x.mp4" for folder in "ab"]
    for film in films:
        film.parent.mkdir()
        film.write_bytes(film.parent.name.encode())
    one, other = (resolve([str(film)], Path("datasets.yaml")) for film in films)
    assert one.output == other.output
    prepare(one)
    prepare(one)
    with pytest.raises(StopRun, match=r"holds the dataset of other films, .*/a/x.mp4.*/b/x.mp4.*--output"):
        prepare(other)
    prepare(resolve([str(films[1])], Path("datasets.yaml"), output=one.output))  # as the line says
    prepare(other)


def test_a_set_of_films_may_grow_and_shrink(here):
    (here / "films").mkdir()
    for name in "abc":
        (here / "films" / name).write_bytes(name.encode())
    for names in ("ab", "abc", "bc"):
        prepare(resolve([f"films/{name}" for name in names], Path("datasets.yaml")))
    folder = resolve(["films"], Path("datasets.yaml"))
    prepare(folder)
    for name in "abc":
        (here / "films" / name).rename(here / "films" / f"new {name}")
    prepare(folder)


def test_paths_are_told_without_detours(here):
    assert resolve(["demo"], Path("datasets.yaml"), output=Path("a/../b/")).output == here / "b"


def test_a_forecast_begins_no_output_folder(here):
    """Else the run after it would find a folder that is not its own."""
    film = here / "old.mp4"
    film.write_bytes(b"no film")
    os.utime(film, (1, 1))  # old enough for its hash to be remembered
    job = resolve([str(film)], Path("datasets.yaml"))
    assert forecast(job)
    assert not (here / "out").exists()
    claim(job)
