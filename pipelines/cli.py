"""`memento`: one command per task. Imports live inside the commands, so `memento --help` is instant."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines import benchmark_cli
from pipelines.plain_errors import plain_errors

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Films become a dataset of multi-shot sequences, the Memento video model is trained on it and tells "
    "stories shot by shot, and a benchmark scores any method's stories.",
)
DATASET, MODEL, BENCHMARK, MACHINE = "Dataset", "Model", benchmark_cli.PANEL, "This machine"
weights_app = typer.Typer(no_args_is_help=True, help="Model weights: list them, fetch some.")
story_app = typer.Typer(no_args_is_help=True, help="Story scripts: check any, write one from a concept.")

Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Folder of the dataset (out/NAME for curate, else out/demo)."),
]
Config = Annotated[Path, typer.Option(help="The file with your datasets.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="A stage setting, e.g. filters.max_shake=0.03 (docs/settings.md). Repeatable."
    ),
]


@app.command(
    rich_help_panel=DATASET,
    short_help="Films in; clips, captions, tables and a review page out.",
)
def curate(  # noqa: PLR0913 - the options of a command line
    films: Annotated[
        list[str] | None, typer.Argument(help="Files, folders, globs, URLs, or one dataset of datasets.yaml.")
    ] = None,
    output: Output = None,
    preset: Annotated[str | None, typer.Option(help="paper-text, paper-table or bridged.")] = None,
    config: Config = Path("datasets.yaml"),
    captioner: Annotated[
        str | None, typer.Option(help="What writes the captions: auto, describe, vllm or openai.")
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(help="URL of an OpenAI-compatible server that writes the captions.")
    ] = None,
    caption_model: Annotated[str | None, typer.Option(help="Model there, or the one vLLM loads.")] = None,
    set_: Set = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say what would run and why; do nothing.")
    ] = False,
    ray: Annotated[
        bool | None, typer.Option("--ray/--loop", help="Ray, or a plain loop; else what pays here.")
    ] = None,
) -> None:
    """Films in; Parquet, clips and a DuckDB file out. Run it again any time: finished work is kept."""
    from curation.config import merge, parse_overrides
    from pipelines import curate_command

    with plain_errors():
        captions = curate_command.caption_settings(captioner, endpoint, caption_model)
        curate_command.main(
            films or ["demo"], config, output=output, preset=preset,
            settings=merge(captions, parse_overrides(set_ or [])), explain_only=explain, on_ray=ray,
        )  # fmt: skip


@app.command(
    rich_help_panel=DATASET,
    short_help="SQL over a dataset (DuckDB); canned questions too.",
    context_settings={"ignore_unknown_options": True},  # SQL may begin with a comment: -- like this
)
def query(
    sql: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SQL]", help="SQL in quotes, a file.sql, or the name of a canned query; none lists them."
        ),
    ] = None,
    output: Output = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of a table.")] = False,
) -> None:
    """SQL over a published dataset (DuckDB)."""
    from pipelines import query_command

    with plain_errors():
        query_command.main(query_command.one(sql or []), output, as_csv=as_csv)


@app.command(
    rich_help_panel=DATASET,
    short_help="What would enter and leave if thresholds moved.",
)
def refilter(
    set_: Set = None,
    output: Output = None,
    grid: Annotated[
        str | None, typer.Option(help="One threshold at several values: filters.max_shake=0.02,0.03,0.05")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Packed by paper-text, paper-table or bridged.")] = None,
) -> None:
    """What would enter and leave if thresholds moved. Seconds; decodes nothing, changes nothing."""
    from curation.config import parse_overrides
    from pipelines import refilter_command

    with plain_errors():
        refilter_command.main(output or Path("out/demo"), parse_overrides(set_ or []), grid, preset)


# Options of `generate` that take more than a line.
Placement = Annotated[str, typer.Option(help="Of the experts: auto, both, shard, one or layers.")]
Attention = Annotated[str, typer.Option(help="Kernel: auto, sdpa, cudnn, flash, flash3, sage or math.")]
Compile = Annotated[
    bool, typer.Option("--compile", help="Compile the blocks: slow first steps, then faster ones.")
]
Model = Annotated[
    str | None,
    typer.Option(
        help="Weights: a path, a name, or debug. Else the newest of make train.", show_default=False
    ),
]
Mode = Annotated[
    str | None,
    typer.Option(help="memento, storymem or wan (no memory). Else what the weights were trained for."),
]
Switches = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any other setting or switch, e.g. queries=low (docs/generate.md)."),
]


@app.command(
    rich_help_panel=MODEL,
    short_help="Story scripts in; films, shot by shot, out.",
)
def generate(  # noqa: PLR0913 - the options of a command line
    stories: Annotated[
        list[Path] | None,
        typer.Argument(help="Story scripts, or folders of them; none is the story that comes along."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Gets a folder for each story.")] = Path(
        "out/generate"
    ),
    mode: Mode = None,
    reference: Annotated[
        list[Path] | None, typer.Option(help="A picture to remember before the first shot. Repeatable.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed gives another film.")] = 0,
    steps: Annotated[int | None, typer.Option(help="Of the solver (40).")] = None,
    size: Annotated[str | None, typer.Option(help="HEIGHTxWIDTH (what the model was made for).")] = None,
    frames: Annotated[int | None, typer.Option(help="Of a shot, 4n+1, at 16 a second.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Classifier-free guidance (3.5).")] = None,
    shots: Annotated[int | None, typer.Option(help="Only the first so many shots.")] = None,
    model: Model = None,
    adapter: Annotated[
        str | None, typer.Option(help="LoRA and queries: a path, memento or storymem.")
    ] = None,
    t2v: Annotated[str | None, typer.Option(help="Wan2.2-T2V for first shots: a path, or none.")] = None,
    codec: Annotated[str, typer.Option(help="auto, wan, dct, or a path.")] = "auto",
    text: Annotated[str, typer.Option(help="auto, umt5, hashed, or a path.")] = "auto",
    clip: Annotated[str | None, typer.Option(help="Folder of CLIP, or none.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
    placement: Placement = "auto",
    dtype: Annotated[str, typer.Option(help="auto, bf16 or fp32.")] = "auto",
    merge: Annotated[bool, typer.Option(help="Add the LoRA into the weights.")] = True,
    attention: Attention = "auto",
    compile_: Compile = False,
    set_: Switches = None,
) -> None:
    """Story scripts in, films and a page for each out. Run it again any time: finished shots are kept."""
    from pipelines import generate_command, generate_settings

    with plain_errors():
        generate_settings.check_choices(placement=placement, dtype=dtype, attention=attention)
        order = generate_command.Order(
            stories=stories or (), output=output, mode=mode, references=reference or (), seed=seed,
            steps=steps, guidance=guidance, size=size, frames=frames, shots=shots,
            settings=generate_settings.parse_settings(set_ or []),
        )  # fmt: skip
        named = {
            "model": model, "adapter": adapter, "t2v": t2v, "codec": codec, "text": text, "clip": clip,
            "device": device, "placement": placement, "dtype": dtype, "merge": merge,
            "attention": attention, "compile": compile_,
        }  # fmt: skip
        generate_command.main(order, named)


@app.command(
    rich_help_panel=MODEL,
    short_help="Encode a dataset for training ahead of it (train does so too).",
)
def cache(  # noqa: PLR0913 - the options of a command line
    recipe: Annotated[
        str | None, typer.Option(help="The training that will read it; what else is given overrides its own.")
    ] = None,
    dataset: Annotated[
        Path | None, typer.Option(help="Folder that curate published, or a file in the official JSON form.")
    ] = None,
    where: Annotated[str | None, typer.Option(help="SQL over the view `sequences`: only these.")] = None,
    folder: Annotated[Path | None, typer.Option("--cache", help="The cache (else out/train/cache).")] = None,
    codec: Annotated[str | None, typer.Option(help="wan, dct, or the path of Wan's video codec.")] = None,
    text: Annotated[str | None, typer.Option(help="umt5, hashed, or the path of umT5.")] = None,
    base: Annotated[
        str | None, typer.Option(help="Base model, with codec and text encoder beside it: path or name.")
    ] = None,
    size: Annotated[str | None, typer.Option(help="Of a shot: FRAMESxHEIGHTxWIDTH.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Of what is stored: bf16 or fp32.")] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave bad sequences out instead of stopping.")
    ] = False,
    on_ray: Annotated[bool, typer.Option("--ray", help="On Ray: RAY_ADDRESS's cluster, or here.")] = False,
    device: Annotated[str | None, typer.Option(help="cuda or cpu (else CUDA where there is one).")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Read every byte of what is there.")] = False,
    official: Annotated[
        Path | None, typer.Option(help="Also write the sequences there, in the official JSON form.")
    ] = None,
) -> None:
    """Encode a dataset's videos and captions for training, once; finished work is kept."""
    from pipelines import cache_command

    order = cache_command.CacheOrder(
        recipe=recipe, dataset=dataset, where=where, cache=folder, codec=codec, text=text, base=base,
        size=size, dtype=dtype, skip_bad=skip_bad,
    )  # fmt: skip
    with plain_errors():
        cache_command.main(order, on_ray=on_ray, device=device, verify=verify, official=official)


@app.command(
    rich_help_panel=MODEL,
    short_help="A dataset in, checkpoints of the model out.",
)
def train(  # noqa: PLR0913 - the options of a command line
    recipe: Annotated[
        str, typer.Argument(help="debug, low_noise_480p, high_noise_480p ... (docs/train.md).")
    ],
    dataset: Annotated[
        Path | None, typer.Option(help="Folder of make curate, or a file of the official JSON form.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Gets a folder for each expert.")
    ] = None,
    expert: Annotated[str | None, typer.Option(help="high, low or both (what the recipe says).")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any field of the recipe, e.g. optim.lr=1e-4. Repeatable."),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what memory and disk it needs; train nothing.")
    ] = False,
    resume: Annotated[
        str,
        typer.Option(help="auto: go on where there is a checkpoint; none: refuse a folder that holds a run."),
    ] = "auto",
    small: Annotated[
        bool, typer.Option("--small", help="The recipe's objective at debug size, for a CPU.")
    ] = False,
    memory: Annotated[
        str | None, typer.Option(help="Fit the run to 1x24gb, 1x80gb or 8x80gb (see --plan).")
    ] = None,
    export: Annotated[
        Path | None, typer.Option(help="Write what is trained as the released two files; train nothing.")
    ] = None,
) -> None:
    """A published dataset in, checkpoints of the model out. Run it again any time: it goes on exactly."""
    from pipelines import train_command

    with plain_errors():
        order = train_command.Order(
            recipe=recipe, dataset=dataset, output=output, expert=expert, settings=set_ or (), plan=plan,
            resume=resume, small=small, memory=memory, export=export,
        )  # fmt: skip
        train_command.main(order)


@app.command(
    rich_help_panel=MODEL,
    short_help="Model weights from one form into another.",
)
def convert(
    source: Annotated[Path, typer.Argument(help="Weights: a file or folder in any form.")],
    target: Annotated[Path, typer.Argument(help="A folder that does not exist yet.")],
    to: Annotated[str, typer.Option("--to", help="native, diffusers, official, storymem or ours.")],
    merge: Annotated[
        Path | None, typer.Option(help="Adapters to add into the base weights on the way.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="Of base weights: keep, bf16, fp16 or fp32.")] = "keep",
) -> None:
    """Model weights from one form to another: Wan2.2, diffusers, Memento, StoryMem, ours."""
    from pipelines import convert_command

    with plain_errors():
        convert_command.main(source, target, to, merge=merge, dtype=dtype)


benchmark_cli.add_to(app)  # here, because help lists panels in the order of their first commands


@app.command(
    rich_help_panel=MACHINE,
    short_help="Which tier each part has here, and what would raise it.",
)
def doctor() -> None:
    """Which tier each part has on this machine, and the command that would raise it."""
    from pipelines import doctor

    with plain_errors():
        doctor.main()


@weights_app.command("list")
def weights_list() -> None:
    """Every model the project knows: source, licence, and whether it is here."""
    from pipelines import weights_command

    weights_command.show()


@weights_app.command("pull")
def weights_pull(
    names: Annotated[list[str] | None, typer.Argument(help="Names from `memento weights list`.")] = None,
    evaluation: Annotated[
        str, typer.Option("--eval", help="All encoders that this preset of memento eval needs.")
    ] = "",
) -> None:
    """Download models and check their hashes. Exit status 1 if some did not come."""
    from pipelines import weights_command

    with plain_errors():
        if not weights_command.pull(names or (), evaluation):
            raise typer.Exit(1)


@story_app.command("check")
def story_check(
    files: Annotated[list[Path], typer.Argument(help="Story scripts, JSON or JSON5.")],
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as errors.")] = False,
    notes: Annotated[bool, typer.Option("--notes", help="Also say what is only worth knowing.")] = False,
) -> None:
    """A line for each fault: what, where, how to mend. Exit status 1 if a file cannot be used."""
    from pipelines import story_command

    if not story_command.check(files, strict=strict, notes=notes):
        raise typer.Exit(1)


@story_app.command("write")
def story_write(
    concept: Annotated[str, typer.Argument(help="What the story is about.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")],
    shots: Annotated[int, typer.Option(help="How many shots.")] = 9,
    scenes: Annotated[int, typer.Option(help="How many scenes.")] = 3,
    form: Annotated[str, typer.Option(help="memento or storymem.")] = "memento",
    endpoint: Annotated[
        str | None, typer.Option(help="URL of an OpenAI-compatible server; without it vLLM runs here.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The model there, or the one that vLLM loads.")] = None,
    seed: Annotated[int, typer.Option(help="Another seed gives another story.")] = 0,
) -> None:
    """A language model writes a story script; only a valid one is kept."""
    from curation.engine.stage import StopRun
    from curation.stories.writer import StoryOrder
    from pipelines import story_command

    with plain_errors():
        try:
            order = StoryOrder(concept=concept, scenes=scenes, shots=shots, form=form)
        except ValueError as error:
            raise StopRun(str(error)) from error
        story_command.write(order, output, endpoint=endpoint, model=model, seed=seed)


app.add_typer(story_app, name="story", rich_help_panel=MODEL)
app.add_typer(weights_app, name="weights", rich_help_panel=MACHINE)


def main() -> None:
    """Entry point of the `memento` command."""
    app()


if __name__ == "__main__":
    main()
