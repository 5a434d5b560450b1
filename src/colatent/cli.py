"""The command `colatent`: what can be asked without running the workflow."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from colatent.errors import InputError
from colatent.jobs.terminal import escaped, escaped_command

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)


@app.command()
def check(
    config: Annotated[Path, typer.Argument(help="config file (YAML), such as config/config.yaml")],
) -> None:
    """Validate a config and the files it names, without running anything."""
    from colatent.config.file import load_config
    from colatent.config.session_table import load_sessions
    from colatent.ingest.preflight import check_inputs

    with _one_sentence():
        settings = load_config(config)
        sessions = load_sessions(settings.sessions)
        check_inputs(settings, sessions)
        n_fits = len(sessions) * len(settings.models) * settings.heldout.folds * len(settings.heldout.seeds)
        print(f"{config}: fine. {len(sessions)} session(s), {len(settings.models)} models, {n_fits} fits")


@app.command()
def inspect(nwb: Annotated[str, typer.Argument(help="NWB file, or its URL (https://, s3://)")]) -> None:
    """Show what is inside an NWB file (on stderr), and print a config for it, as in `> config.yaml`."""
    from colatent.ingest import inspect as contents_of

    with _one_sentence():
        # do not truncate tables in a pipe or a log
        contents = contents_of(nwb)
        Console(width=None if sys.stderr.isatty() else 200, stderr=True).print(contents)
        print(contents.config, end="")  # wrapped lines could not be pasted


@app.command()
def verify(results: Annotated[Path, typer.Argument(help="folder of results, such as results")]) -> None:
    """Find damaged or missing results, and print the command that redoes just those."""
    from colatent.results.manifest import read_record
    from colatent.results.repair import repair_command
    from colatent.results.verify import verify as verification_of

    with _one_sentence():
        damages, looked_at, unknown = verification_of(results)
        if unknown:
            typer.echo(
                f"{len(unknown)} stores are not in the record, such as {escaped(str(unknown[0]))}: they are "
                "from another config or an unfinished run, and were not checked",
                err=True,
            )
        if not damages:
            print(f"{escaped(str(results))}: all {looked_at} stores and files are as they were written")
            return
        for damage in damages:
            typer.echo(f"colatent: {escaped(damage.sentence)}", err=True)
        typer.echo(f"{len(damages)} of {looked_at} are damaged.", err=True)
        if targets := [damage.target for damage in damages if damage.target]:
            command = repair_command(results, read_record(results), targets)
            # not by Rich, which would turn :heart: into a heart and tabs into spaces
            typer.echo(f"To redo them:\n{escaped_command(command)}", err=True)
        raise typer.Exit(1)


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="result tree, such as results/demo")],
    b: Annotated[Path, typer.Argument(help="the one to compare it with")],
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="floating-point numbers may differ by this share of the largest magnitude in their array; "
            "without it, only identical bits are equal",
        ),
    ] = None,
) -> None:
    """Compare the contents of two result trees.

    Exits with 0 if they are equal, 1 if they differ, 2 if they cannot be compared.
    """
    from colatent.results.compare import compare_trees, report_lines

    with _one_sentence(exit_code=2):
        comparison = compare_trees(a, b, tolerance)
    for line in report_lines(comparison):
        print(line)
    raise typer.Exit(int(comparison.differs))


@app.command()
def status(results: Annotated[Path, typer.Argument(help="folder of results, such as results")]) -> None:
    """Show which fits run, wait, are done or have failed, and the likely cause of each failure."""
    from rich.table import Table

    from colatent.results.status import failures, fit_statuses

    colours = {"failed": "red", "running": "green", "waiting": "yellow", "done": "dim"}
    with _one_sentence():
        fits = fit_statuses(results)
        table = Table("session", "model", "fold", "seed", "state", "last line", box=None)
        for fit in fits:
            cells = [Text(escaped(str(cell))) for cell in (*fit.wildcards, fit.state, fit.line)]
            table.add_row(*cells, style=colours[fit.state])
        Console(width=None if sys.stdout.isatty() else 300, highlight=False).print(table)
        counts = ", ".join(f"{sum(fit.state == state for fit in fits)} {state}" for state in colours)
        print(f"{len(fits)} fits: {counts}")
        for failure in failures(results):
            print("\n".join(map(escaped, failure.sentences())))


@app.command()
def archive(
    config: Annotated[Path, typer.Argument(help="config file of the analysis")],
    output: Annotated[Path, typer.Argument(help="tar file to write, such as analysis.tar.gz")],
) -> None:
    """Pack code, locked environment, config and record of an analysis, without its data or credentials."""
    from colatent.results.archive import write_archive

    with _one_sentence():
        names, warnings = write_archive(config, output)
        for warning in warnings:
            typer.echo(f"colatent: {escaped(warning)}", err=True)
        print(f"{output}: {len(names)} files; README.md in it says how to run it")


@app.command()
def reference(
    schema: Annotated[Path, typer.Option(help="JSON schema to write")] = Path(
        "workflow/schemas/config.schema.json"
    ),
    manual: Annotated[Path, typer.Option(help="manual whose table of keys is updated")] = Path(
        "config/README.md"
    ),
) -> None:
    """Write the JSON schema and the table of keys from the config's models."""
    from colatent.config.reference import json_schema, with_reference

    schema.write_text(json_schema(), encoding="utf-8")
    manual.write_text(with_reference(manual.read_text(encoding="utf-8")), encoding="utf-8")


class _one_sentence:
    """Ends the program with the sentence of an InputError instead of a traceback."""

    def __init__(self, exit_code: int = 1) -> None:
        self.exit_code = exit_code

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, InputError):
            # escaped, as it may quote files; one line per problem of a config
            lines = map(escaped, str(error).split("\n"))
            typer.echo("colatent: " + "\n".join(lines), err=True)
            raise typer.Exit(self.exit_code)
