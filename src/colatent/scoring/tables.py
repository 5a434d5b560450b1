"""Write, check, read and join the tables of scores."""

import csv
from pathlib import Path

import pandas as pd

from colatent.errors import InputError
from colatent.scoring.paired import paired_differences
from colatent.store.atomic import atomically
from colatent.store.checksums import write_checksums
from colatent.store.stores import anew, check_store, file_sha256, group_names, read_attrs, read_group

SCORE_COLUMNS = [
    "session", "model", "fold", "seed", "heldout", "given", "predicted", "channel", "metric", "value", "n",
]  # fmt: skip
TEXT_COLUMNS = ("session", "model", "heldout", "given", "predicted", "channel", "metric")
RECOVERY = "latent_recovery.csv"
RECOVERY_COLUMNS = ["session", "model", "fold", "seed", "group", "latent", "r2"]


def write_table(table: pd.DataFrame, path: str | Path) -> None:
    """Write a table as CSV with all text quoted.

    Channel names may contain commas, quotes and line ends. Minimal quoting would leave a carriage return
    unquoted, which starts a new row on reading.
    """
    with atomically(path) as temporary:
        table.to_csv(temporary, index=False, quoting=csv.QUOTE_NONNUMERIC)


def read_scores(path: Path) -> pd.DataFrame:
    """Read a table of scores; InputError if it is missing."""
    if not path.is_file():
        raise InputError(f"{path}: there is no such table; run the stage `score` first")
    return read_table(path)


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a table of `write_table`; names stay text, even `NA` and `01`, and empty values are NaN."""
    return pd.read_csv(
        path,
        dtype=dict.fromkeys(TEXT_COLUMNS, str),
        keep_default_na=False,
        na_values={"value": [""]},
        float_precision="round_trip",
    )


def read_recovery(stores: list[Path]) -> pd.DataFrame:
    """Read and join the latent recovery of all score stores of simulations with known latents."""
    tables = [read_group(s, "recovery").to_dataframe() for s in stores if "recovery" in group_names(s)]
    if not tables:
        return pd.DataFrame(columns=RECOVERY_COLUMNS)
    return pd.concat(tables)[RECOVERY_COLUMNS].reset_index(drop=True)


def check_table(table: str | Path, store: str | Path) -> None:
    """Raise InputError if a model's table or store of scores was changed since it was written."""
    check_store(store)
    if file_sha256(Path(table)) != read_attrs(store)["table"]:
        raise InputError(f"{table}: the table is not as it was written; {anew(table)}")


def join_scores(tables: list[str], stores: list[Path], folder: str | Path) -> None:
    """Write `scores.csv`, `paired_differences.csv`, `latent_recovery.csv` (if truth is known) and checksums.

    Args:
        tables, stores: table and store of each session and model, in the same order.
        folder: results folder.

    Raises:
        InputError: a table or store was changed since it was written.
    """
    folder = Path(folder)
    for path, store in zip(tables, stores, strict=True):
        check_table(path, store)
    scores = pd.concat([read_scores(Path(t)) for t in tables])
    joined = {"scores.csv": scores[SCORE_COLUMNS], "paired_differences.csv": paired_differences(scores)}
    (folder / RECOVERY).unlink(missing_ok=True)  # left by an earlier run with known truth
    if len(recovery := read_recovery(stores)):
        joined[RECOVERY] = recovery
    for name, table in joined.items():
        write_table(table, folder / name)
    write_checksums(folder, [folder / name for name in joined])
