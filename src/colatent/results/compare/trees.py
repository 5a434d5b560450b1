"""Two trees of results, output by output: verdict, since which stage they differ, and all that in words."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from colatent.errors import InputError
from colatent.results.compare.differences import (
    ORIGIN,
    Difference,
    compare_contents,
    compare_exports,
    compare_tables,
    leaves,
    plain,
    store_content,
)
from colatent.store.layout import MADE_WITH, OUTPUTS, walk_results, what_lies_at
from colatent.store.stores import check_store, read_attrs

OTHERS = "other files"
STAGES = (*dict.fromkeys(output.rule for output in OUTPUTS if output.kind != "log"), OTHERS)
_MOST_ROWS, _MOST_NAMES, _LENGTH = 20, 4, 60
_ABSENT = "(absent)"


class Verdict(Enum):
    """What a comparison comes to."""

    IDENTICAL = "identical"
    WITHIN = "equal within"
    DIFFERENT = "different"


class Leaf(NamedTuple):
    """An entry of the provenance that differs."""

    path: str
    a: Any
    b: Any

    @property
    def kind(self) -> str:
        return self.path.split(".")[0]


@dataclass(frozen=True)
class Compared:
    """One store or file: its stage, session and model ("" for all), how its content and origin differ."""

    path: str
    stage: str
    session: str
    model: str
    differences: tuple[Difference, ...]
    origins: tuple[Leaf, ...] = ()

    @property
    def excess(self) -> float:
        """The smallest tolerance that lets this pass; negative if it is identical."""
        return max((d.excess for d in self.differences), default=-1.0)


@dataclass(frozen=True)
class Comparison:
    """Two trees compared.

    Attributes:
        items: in the order of the pipeline.
        left_out: ending of names -> number of files that are not compared.
        tolerance: share of an array's largest magnitude that numbers may differ by; None if not at all.
    """

    a: Path
    b: Path
    items: tuple[Compared, ...]
    left_out: Counter[str]
    tolerance: float | None = None

    @property
    def excess(self) -> float:
        return max(item.excess for item in self.items)

    @property
    def verdict(self) -> Verdict:
        if self.excess < 0:
            return Verdict.IDENTICAL
        within = self.tolerance is not None and self.excess <= self.tolerance
        return Verdict.WITHIN if within else Verdict.DIFFERENT

    def differs(self, item: Compared) -> bool:
        """Does an item differ by more than the tolerance, or at all if all that differs is within?"""
        beyond = -1.0 if self.tolerance is None or self.verdict is Verdict.WITHIN else self.tolerance
        return item.excess > beyond


def compare_trees(a: Path, b: Path, tolerance: float | None = None) -> Comparison:
    """Compare two trees of results; one store of each is in memory at a time.

    Args:
        a, b: folders such as ``results``.
        tolerance: numbers may differ by this share of the largest magnitude in their array.

    Raises:
        InputError: a folder is no tree of results, or holds a damaged or incomplete store or file.
    """
    one, other = _kinds(a), _kinds(b)
    items, left_out = [], Counter[str]()
    for path in one.keys() | other.keys():
        kind = one.get(path) or other[path]
        if path in one and path in other and kind != "other":
            items.append(_compared(path, *_differences(kind, a / path, b / path)))
        elif (path in one) == (path in other) or _comes_and_goes(path, kind):
            left_out[Path(path).suffix] += 1
        else:
            only = Difference("", "only in A" if path in one else "only in B")
            items.append(_compared(path, [only]))
    items.sort(key=lambda item: (STAGES.index(item.stage), item.path))
    return Comparison(a, b, tuple(items), left_out, tolerance)


def _kinds(folder: Path) -> dict[str, str]:
    """Return path -> store, table, export or other of all that lies below a folder, and check its stores."""
    try:
        if not folder.is_dir():
            raise InputError(f"{folder}: there is no such folder")
        kinds: dict[str, str] = {}
        for place in walk_results(folder):
            name = place.path.relative_to(folder)
            if place.is_store:
                check_store(place.path)
                kinds[name.as_posix()] = "store"
            kinds |= {(name / file).as_posix(): _kind((name / file).as_posix()) for file in place.files}
        if "." in kinds:
            raise InputError(f"{folder}: is a single store; name the folder of results that it belongs to")
        if "store" not in kinds.values():
            raise InputError(f"{folder}: no store in this folder; name one that a config has under `results`")
    except InputError as error:  # it names what the tree does
        raise InputError(plain(error)) from None
    except OSError as error:
        raise InputError(f"{plain(error.filename)}: cannot be read ({error.strerror})") from None
    return kinds


def _kind(path: str) -> str:
    if path.endswith(".csv") and not path.startswith("report/"):
        return "table"
    found = what_lies_at(path)
    return "export" if found and found[0].kind == "export" else "other"


def _comes_and_goes(path: str, kind: str) -> bool:
    """Is this no result of every run: a log, settings, or a figure that is made on request?"""
    found = what_lies_at(path)
    on_request = found is not None and found[0].rule.endswith("_figure")
    return kind == "other" and (
        on_request or path.endswith(".log") or path.split("/")[0] in ("logs", MADE_WITH)
    )


def _compared(path: str, differences: list[Difference], origins: Iterable[Leaf] = ()) -> Compared:
    output, wildcards = what_lies_at(path) or (None, {})
    stage = output.rule if output and output.rule in STAGES else OTHERS
    of = wildcards.get("session", ""), wildcards.get("model", "")
    return Compared(path, stage, *of, tuple(differences), tuple(origins))


def _differences(kind: str, a: Path, b: Path) -> tuple[list[Difference], list[Leaf]]:
    if kind == "table":
        return compare_tables(a, b), []
    if kind == "export":
        return compare_exports(a, b), []
    said = [dict(leaves({k: v for k, v in read_attrs(f).items() if k in ORIGIN})) for f in (a, b)]
    pairs = (Leaf(path, *(s.get(path, _ABSENT) for s in said)) for path in said[0] | said[1])
    return compare_contents(store_content(a), store_content(b)), [p for p in pairs if p.a != p.b]


def report_lines(comparison: Comparison) -> Iterator[str]:
    """Yield the report: verdict, stages, since which stage, provenance, details of each stage."""
    yield _verdict(comparison)
    yield f"A  {plain(comparison.a)}"
    yield f"B  {plain(comparison.b)}"
    yield from _section("Stages, in the order of the pipeline:", _stages(comparison))
    yield from _section("Since which stage (and what its provenance says is other):", _since(comparison))
    yield from _section("Provenance, A -> B:", _provenance(comparison.items))
    for stage in STAGES:
        found = [(d, i.path) for i in comparison.items if i.stage == stage for d in i.differences]
        found.sort(key=lambda pair: -pair[0].excess)
        rows = [f"{plain(path, 200)}  {difference}" for difference, path in found]
        yield from _section(f"Differences of {stage}, largest first:", rows)
    if left := comparison.left_out:
        names = ", ".join(f"{plain(ending or 'without ending')} ({left[ending]})" for ending in sorted(left))
        yield from _section("Not compared:", [f"{names}; pages and figures show what is compared"])


def _verdict(comparison: Comparison) -> str:
    n, differing = len(comparison.items), sum(i.excess >= 0 for i in comparison.items)
    text = f"identical: all {n} stores and files that are compared"
    if comparison.verdict is not Verdict.IDENTICAL:
        within = f" {comparison.tolerance:g}" if comparison.verdict is Verdict.WITHIN else ""
        finite = comparison.excess < float("inf")
        largest = f", by at most {comparison.excess:.2g} of the largest value" if finite else ""
        text = f"{comparison.verdict.value}{within}: {differing} of {n} stores and files differ{largest}"
    kinds = {leaf.kind for i in comparison.items for leaf in i.origins}
    return f"{text}; made with other {', '.join(k for k in ORIGIN if k in kinds)}" if kinds else text


def _section(title: str, rows: Iterable[str]) -> list[str]:
    rows = list(rows)
    more = [f"and {len(rows) - _MOST_ROWS} more"] if len(rows) > _MOST_ROWS else []
    return ["", title, *(f"  {row}" for row in [*rows[:_MOST_ROWS], *more])] if rows else []


def _stages(comparison: Comparison) -> Iterator[str]:
    for stage in STAGES:
        items = [i for i in comparison.items if i.stage == stage]
        if items:
            differing = sum(i.excess >= 0 for i in items)
            within = differing - sum(map(comparison.differs, items))
            state = f"{differing} of {len(items)} differ" if differing else f"{len(items)} identical"
            yield f"{stage:<15}{state}" + (f", {within} within {comparison.tolerance:g}" if within else "")


def _since(comparison: Comparison) -> Iterator[str]:
    """Yield since when each session differs; where that depends on the model, one row for each model."""
    for session in dict.fromkeys(i.session for i in comparison.items if i.session):
        items = [i for i in comparison.items if i.session == session]
        whole = [i for i in items if not i.model and i.stage != "session_page"]
        if any(map(comparison.differs, whole)) or not any(map(comparison.differs, items)):
            yield f"{plain(session)}: {_first(comparison, whole)}"
            continue
        for model in dict.fromkeys(i.model for i in items if i.model):
            first = _first(comparison, [i for i in items if i.model == model])
            yield f"{plain(f'{session} / {model}')}: {first}"


def _first(comparison: Comparison, items: list[Compared]) -> str:
    """Return the first stage that differs, and what its provenance says of why."""
    stage = next((i.stage for i in items if comparison.differs(i)), "")
    if not stage:
        beyond = comparison.tolerance is not None and comparison.verdict is Verdict.DIFFERENT
        return f"nothing beyond {comparison.tolerance:g}" if beyond else "identical"
    of_stage = [i for i in items if i.stage == stage]
    causes = [d.what for i in of_stage for d in i.differences if not d.part]
    paths = [leaf.path for i in of_stage for leaf in i.origins]
    causes += [p if p.startswith(("settings", "inputs")) else p.split(".")[0] for p in paths]
    unknown = "same provenance: another machine, or a step that is not deterministic"
    return f"since {stage} ({_listed(list(dict.fromkeys(causes))) or unknown})"


def _provenance(items: Iterable[Compared]) -> list[str]:
    """Return one row for each entry that differs, settings first, with the stages whose stores tell it."""
    places: dict[tuple[str, str], dict[str, None]] = {}
    for item in items:
        for leaf in item.origins:
            row = plain(leaf.path, 200), f"{_value(leaf.a)} -> {_value(leaf.b)}"
            places.setdefault(row, {})[f"{item.stage} {item.model}".strip()] = None
    ordered = sorted(places, key=lambda row: ORIGIN.index(row[0].split(".")[0]))
    return [f"{path}: {change}  ({_listed([*places[path, change]])})" for path, change in ordered]


def _value(value: Any) -> str:
    return plain(f'"{value}"' if isinstance(value, str) and value != _ABSENT else value, _LENGTH)


def _listed(names: list[str]) -> str:
    shown = [plain(name, _LENGTH) for name in names[:_MOST_NAMES]]
    more = [f"{len(names) - _MOST_NAMES} more"] if len(names) > _MOST_NAMES else []
    return ", ".join([*shown, *more])
