"""The benchmark's commands: `memento eval`, `memento stbench`, `memento study`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.plain_errors import plain_errors

PANEL = "Benchmark"

study_app = typer.Typer(no_args_is_help=True, help="User study: make blinded pages, read the answers.")

stbench_app = typer.Typer(
    invoke_without_command=True, help="The benchmark's story scripts: how to get, show and check them."
)


def add_to(app: typer.Typer) -> None:
    """Put the commands into the `memento` command."""
    told = "Videos of one or more methods in, a report of scores out."
    app.command("eval", rich_help_panel=PANEL, short_help=told)(evaluate)
    app.add_typer(study_app, name="study", rich_help_panel=PANEL)
    app.add_typer(stbench_app, name="stbench", rich_help_panel=PANEL)


Methods = Annotated[
    list[str],
    typer.Argument(help="name=folder, name=folder:layout or name=ranges.json (docs/evaluate.md)."),
]
Stories = Annotated[
    list[Path] | None, typer.Option("--stories", help="Story scripts, or folders of them. Repeatable.")
]


@study_app.command("make")
def study_make(  # noqa: PLR0913 - the options of a command line
    methods: Methods,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the study.")],
    stories: Stories = None,
    raters: Annotated[int, typer.Option(help="How many people will rate.", min=1)] = 10,
    reference: Annotated[
        str | None, typer.Option(help="Compare this method with each other one; else every pair.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Comparisons for each rater; else all.", min=1)] = None,
    checks: Annotated[int, typer.Option(help="Attention checks in each session.", min=0)] = 0,
    early: Annotated[
        bool, typer.Option("--early", help="Raters may answer before both films are over.")
    ] = False,
    partial: Annotated[bool, typer.Option("--partial", help="Also stories that lack shots.")] = False,
    seed: Annotated[int, typer.Option(help="Another seed gives other orders.")] = 0,
) -> None:
    """Videos of several methods in, pages for raters out: blinded, balanced, no server."""
    from benchmark.study.kit import StudySettings
    from pipelines import study_command

    with plain_errors():
        settings = StudySettings(
            raters=raters, reference=reference, limit=limit, checks=checks, must_watch=not early,
            partial=partial, seed=seed,
        )  # fmt: skip
        study_command.make(methods, stories or [], output, settings)


@study_app.command("read")
def study_read(
    files: Annotated[list[Path], typer.Argument(help="Files that raters sent, or their folder.")],
    key: Annotated[Path, typer.Option(help="The study's key.json.")],
    results: Annotated[
        Path | None, typer.Option(help="results.json of `memento eval`: do metrics agree with people?")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="All numbers, as JSON.")] = None,
    max_failed: Annotated[
        int | None, typer.Option(help="Leave out raters who failed more attention checks.", min=0)
    ] = None,
) -> None:
    """Win, tie and lose with intervals, and how far raters agree."""
    from pipelines import study_command

    with plain_errors():
        study_command.read(files, key, results, output, max_failed)


def evaluate(  # noqa: PLR0913 - the options of a command line
    methods: Annotated[
        list[str] | None,
        typer.Argument(
            help="name=folder, name=folder:layout, name=ranges.json; none is what generate left. "
            "Or: diff RESULTS RESULTS."
        ),
    ] = None,
    stories: Stories = None,
    preset: Annotated[str, typer.Option(help="memento, storymem, vbench, holocine or ours.")] = "memento",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Gets the report (else out/eval/METHODS).")
    ] = None,
    characters: Annotated[
        Path | None, typer.Option(help="Map of who is in which shot (memento stbench characters).")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="A choice of the preset, e.g. crop=full (docs/evaluate.md). Repeatable."),
    ] = None,
    weights: Annotated[
        list[str] | None, typer.Option("--weights", help="encoder=path, instead of searching. Repeatable.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, or several: cuda:0,cuda:1.")] = "auto",
    workers: Annotated[int, typer.Option(help="Processes that decode and encode.", min=1)] = 1,
    on_ray: Annotated[bool, typer.Option("--ray", help="On Ray: RAY_ADDRESS's cluster, or here.")] = False,
    features: Annotated[
        Path | None,
        typer.Option(help="Where features are kept and found (else below the output)."),
    ] = None,
    controls: Annotated[bool, typer.Option(help="Also score shuffled, reversed, frozen videos.")] = True,
    random: Annotated[
        bool, typer.Option("--random-weights", help="Made-up weights, to try the machinery.")
    ] = False,
    across: Annotated[
        bool, typer.Option("--across-recipes", help="Of diff: also what was made in different ways.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would cost; do nothing.")] = False,
) -> None:
    """Videos of one or more methods in, a report out. Run it again any time: finished work is kept."""
    from curation.engine.stage import StopRun
    from pipelines import eval_command
    from pipelines.eval_inputs import Order

    with plain_errors():
        if methods and methods[0] == "diff":
            if len(methods) != 3:
                raise StopRun("memento eval diff: give two folders of reports, or their results.json")
            eval_command.diff(Path(methods[1]), Path(methods[2]), across_recipes=across)
            return
        order = Order(
            methods=methods or (), stories=stories or (), output=output, preset=preset, settings=set_ or (),
            weights=weights or (), features=features, characters=characters, controls=controls,
            random=random, device=device, workers=workers, ray=on_ray,
        )  # fmt: skip
        if not eval_command.main(order, dry_run=dry_run):
            raise typer.Exit(1)


Scripts = Annotated[
    list[Path] | None, typer.Argument(help="Story scripts, or folders of them; none is the folder stbench.")
]


@stbench_app.callback()
def stbench(context: typer.Context) -> None:
    """The benchmark's story scripts: how to get, show and check them."""
    from pipelines import stbench_command

    if context.invoked_subcommand is None:
        stbench_command.how_to_obtain()
        if stbench_command.STBENCH.is_dir():
            with plain_errors():
                stbench_command.show([])


@stbench_app.command("show")
def stbench_show(scripts: Scripts = None) -> None:
    """A line for each story, and what is missing."""
    from pipelines import stbench_command

    with plain_errors():
        stbench_command.show(scripts or [])


@stbench_app.command("check")
def stbench_check(scripts: Scripts = None) -> None:
    """A line for each fault of the scripts. Exit status 1 if a file cannot be used."""
    from pipelines import stbench_command

    with plain_errors():
        if not stbench_command.check(scripts or []):
            raise typer.Exit(1)


@stbench_app.command("characters")
def stbench_characters(
    scripts: Scripts = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The file to write.")] = None,
    map_: Annotated[Path | None, typer.Option("--map", help="Check this map instead.")] = None,
) -> None:
    """Who is in which shot: a map to review, from the tags; or check a reviewed one."""
    from pipelines import stbench_command

    with plain_errors():
        stbench_command.characters(scripts or [], output, map_)


@stbench_app.command("ranges")
def stbench_ranges(
    film: Annotated[Path, typer.Argument(help="A video that holds several shots.")],
    stories: Stories = None,
    story: Annotated[str, typer.Option(help="Whose film it is, where its name does not say it.")] = "",
    scene: Annotated[int | None, typer.Option(help="The scene that it shows; else the whole story.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The ranges.json to write.")] = None,
) -> None:
    """Propose which frames of a film are which shot: from cuts, else equal parts; a person checks it."""
    from pipelines import stbench_command

    with plain_errors():
        stbench_command.ranges(film, stories or [], story, scene, output)


@stbench_app.command("audit")
def stbench_audit(scripts: Scripts = None) -> None:
    """How much of each prompt the text tower of the metrics reads."""
    from pipelines import stbench_command

    with plain_errors():
        stbench_command.audit(scripts or [])
