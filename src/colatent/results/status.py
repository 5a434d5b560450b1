"""What the fits of a tree of results are doing: running, done, failed, waiting; and why some failed.

Told from the plan that the workflow leaves when it starts, the jobs' logs, and the stores.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import product, starmap
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel

from colatent.errors import InputError
from colatent.jobs.causes import KILLED, Cause, likely_cause
from colatent.jobs.progress import CAUSE, DONE, FAILED, is_running
from colatent.store.atomic import write_text
from colatent.store.layout import MARKER, PLAN, what_lies_at, where

SLURM_LOGS = ".snakemake/slurm_logs"  # in the folder that Snakemake runs in


class PlannedFit(NamedTuple):
    session: str
    model: str
    fold: int
    seed: int


class Plan(BaseModel):
    """What the workflow was started to do, and the folder in which Snakemake ran."""

    fits: list[PlannedFit]
    folder: Path

    def has(self, wildcards: dict[str, str]) -> bool:
        """Does a job belong to it, or was it of an earlier config?"""
        return not wildcards or any(
            all(str(getattr(fit, name)) == value for name, value in wildcards.items()) for fit in self.fits
        )


class FitStatus(NamedTuple):
    """One fit: which; failed, running, waiting or done; the last line of its log."""

    wildcards: PlannedFit
    state: str
    line: str


class Failure(NamedTuple):
    """One failed job: its rule and wildcards, its log and the last line there, and the likely cause."""

    rule: str
    wildcards: dict[str, str]
    log: Path
    line: str
    cause: Cause | None

    def sentences(self) -> list[str]:
        of = ", ".join(f"{name}={value}" for name, value in self.wildcards.items())
        said = self.line.partition(CAUSE)[0]
        lines = [f"rule {self.rule}" + (f" ({of})" if of else "") + f", log {self.log}", f"  {said}"]
        if self.cause is not None:
            lines.append(f"  likely cause: {self.cause.name}")
            lines.append(f"  to change: {self.cause.remedy.format(rule=self.rule)}")
        return lines


def write_plan(
    results: str | Path,
    sessions: Iterable[str],
    models: Iterable[str],
    folds: Iterable[int],
    seeds: Iterable[int],
) -> None:  # fmt: skip
    """Leave the list of all fits, and this folder, for `fit_statuses` and `failures`.

    Raises:
        InputError: it cannot be written.
    """
    fits = starmap(PlannedFit, product(sessions, models, folds, seeds))
    plan = Plan(fits=list(fits), folder=Path.cwd())
    write_text(Path(results) / PLAN, plan.model_dump_json(), "the list of fits")


def fit_statuses(results: str | Path) -> list[FitStatus]:
    """Return what each planned fit is doing.

    Raises:
        InputError: the workflow has not run there, or its plan is damaged.
    """
    return [_status(Path(results), fit) for fit in _read_plan(Path(results)).fits]


def _read_plan(root: Path) -> Plan:
    try:
        return Plan.model_validate_json((root / PLAN).read_bytes())
    except OSError:
        raise InputError(
            f"{root}: no workflow has run there ({PLAN} is missing); give the folder that the config names "
            "under `results`"
        ) from None
    except ValueError:
        raise InputError(f"{root / PLAN}: the list of fits is damaged; run the workflow again") from None


def _status(root: Path, fit: PlannedFit) -> FitStatus:
    log, store = (where(root, "fit", kind, **fit._asdict()) for kind in ("log", "store"))
    done = (store / MARKER).is_file()
    state, line = _state(log)
    if state != "running":
        # a store outlives its log, and a log its store
        state = "done" if done else "waiting" if state == "done" else state
    return FitStatus(fit, state, "" if state == "waiting" else line)


def _state(log: Path) -> tuple[str, str]:
    """Return what the log says of its job, and its last line."""
    if not log.is_file():
        return "waiting", ""
    running = is_running(log)
    lines = _text(log).rstrip().splitlines()
    last = re.sub(r"^ *\d+\.\d s  ", "", lines[-1]) if lines else ""
    return "running" if running else "done" if last.startswith(DONE) else "failed", last


def failures(results: str | Path) -> Iterator[Failure]:
    """Yield the jobs, of any rule, whose last run failed, and that the workflow still has.

    Raises:
        InputError: as `fit_statuses`.
    """
    plan, root = _read_plan(Path(results)), Path(results) / "logs"
    # where Snakemake ran, unless all was moved since
    folders = dict.fromkeys([Path(plan.folder), Path.cwd(), *Path(results).resolve().parents])
    for log in sorted(root.rglob("*.log")):
        output, wildcards = what_lies_at(log.relative_to(results).as_posix()) or (None, {})
        state, line = _state(log)
        if output and output.kind == "log" and state == "failed" and plan.has(wildcards):
            yield Failure(output.rule, wildcards, log, line, _cause(log, line, folders))


def _cause(log: Path, line: str, folders: Iterable[Path]) -> Cause | None:
    """Return the likely cause of a failure; the folders are those in which Snakemake may have run."""
    # SLURM knows of limits that the job does not
    slurm = re.search(r"SLURM job (\d+)", _text(log))
    names = f"{SLURM_LOGS}/**/{slurm[1]}.log" if slurm else ""
    slurm_logs = [path for folder in folders for path in (folder.glob(names) if names else ())]
    told = [said for path in slurm_logs for said in _text(path).splitlines() if "slurmstepd" in said]
    if cause := likely_cause("\n".join(told)):
        return cause
    # a job names its cause itself, unless its sentence says all, or it was killed
    if CAUSE in line:
        return likely_cause(line)
    return None if line.startswith(FAILED) else KILLED


def _text(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")
