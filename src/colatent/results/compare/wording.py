"""A comparison in plain lines, for a terminal, a pipe or a log."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from colatent.results.compare.contents import STAGES
from colatent.results.compare.differences import (
    Difference,
    Leaf,
    ValuesDiffer,
)
from colatent.results.compare.plain import plain
from colatent.results.compare.trees import (
    ORIGIN,
    Compared,
    Comparison,
    Since,
    Verdict,
)

MOST_ROWS = 20
_VALUE_LENGTH = 60
_MOST_NAMES = 4


def report_lines(comparison: Comparison) -> Iterator[str]:
    """Yield the report: verdict, stages, since which stage, provenance, details of each stage."""
    yield _verdict(comparison)
    yield f"A  {plain(comparison.a.folder)}"
    yield f"B  {plain(comparison.b.folder)}"
    yield from _section("Stages, in the order of the pipeline:", _stages(comparison))
    yield from _section("Since which stage (and what its provenance says is other):", _since(comparison))
    yield from _section("Provenance, A -> B:", _provenance(comparison.items))
    for stage in STAGES:
        items = [i for i in comparison.items if i.item.stage == stage]
        yield from _section(f"Differences of {stage}, largest first:", _details(items))
    yield from _section("Not compared:", _not_compared(comparison))


def _verdict(comparison: Comparison) -> str:
    n, differing = len(comparison.items), sum(i.excess >= 0 for i in comparison.items)
    text = f"identical: all {n} stores and files that are compared"
    if comparison.verdict is not Verdict.IDENTICAL:
        within = f" {comparison.tolerance:g}" if comparison.verdict is Verdict.WITHIN else ""
        largest = f", by at most {_share(comparison.excess)}" if comparison.excess < float("inf") else ""
        text = f"{comparison.verdict.value}{within}: {differing} of {n} stores and files differ{largest}"
    kinds = {_kind(leaf) for i in comparison.items for leaf in i.origins}
    return f"{text}; made with other {', '.join(k for k in ORIGIN if k in kinds)}" if kinds else text


def _kind(leaf: Leaf) -> str:
    return leaf.path.split(".")[0]


def _share(relative: float) -> str:
    return f"{relative:.2g} of the largest value"


def _section(title: str, rows: Iterable[str]) -> list[str]:
    rows = list(rows)
    return ["", title, *(f"  {row}" for row in bounded(rows))] if rows else []


def bounded(rows: list[str]) -> list[str]:
    """Return the first rows, and how many more there are."""
    more = len(rows) - MOST_ROWS
    return [*rows[:MOST_ROWS], f"and {more} more"] if more > 0 else rows


def _stages(comparison: Comparison) -> Iterator[str]:
    for stage in STAGES:
        items = [i for i in comparison.items if i.item.stage == stage]
        if items:
            differing = sum(i.excess >= 0 for i in items)
            within = differing - sum(comparison.differs(i) for i in items)
            state = f"{differing} of {len(items)} differ" if differing else f"{len(items)} identical"
            yield f"{stage:<15}{state}" + (f", {within} within {comparison.tolerance:g}" if within else "")


def _since(comparison: Comparison) -> Iterator[str]:
    beyond = comparison.tolerance is not None and comparison.verdict is Verdict.DIFFERENT
    equal = f"nothing beyond {comparison.tolerance:g}" if beyond else "identical"
    for since in comparison.since():
        who = plain(" / ".join(part for part in (since.session, since.model) if part) or "(this folder)")
        yield f"{who}: " + (f"since {since.stage} ({_cause(since)})" if since.stage else equal)


def _cause(since: Since) -> str:
    return _listed(since.causes) or "same provenance: another machine, or a step that is not deterministic"


def _provenance(items: Iterable[Compared]) -> list[str]:
    """Return one row for each entry that differs, settings first, with the stages whose stores tell it."""
    places: dict[Leaf, dict[str, None]] = {}
    for i in items:
        for leaf in i.origins:
            places.setdefault(leaf, {})[f"{i.item.stage} {i.item.model}".strip()] = None
    ordered = sorted(places, key=lambda leaf: ORIGIN.index(_kind(leaf)))
    return [
        f"{plain(leaf.path, 200)}: {_arrow(leaf.a, leaf.b)}  ({_listed([*places[leaf]])})" for leaf in ordered
    ]


def _listed(names: Sequence[str]) -> str:
    shown = [plain(n, _VALUE_LENGTH) for n in names[:_MOST_NAMES]]
    more = len(names) - len(shown)
    return ", ".join([*shown, f"{more} more"] if more else shown)


def _arrow(a: str, b: str) -> str:
    return f"{plain(a, _VALUE_LENGTH)} -> {plain(b, _VALUE_LENGTH)}"


def _details(items: Iterable[Compared]) -> list[str]:
    found = [(d, i.item.path) for i in items for d in i.differences]
    found.sort(key=lambda pair: -pair[0].excess)  # stable: else in the order of the pipeline
    return [f"{plain(path, 200)}  {_difference(d)}" for d, path in found]


def _difference(difference: Difference) -> str:
    part = plain(difference.part, 200)
    if not isinstance(difference, ValuesDiffer):
        both = f": {_arrow(difference.a, difference.b)}" if difference.a or difference.b else ""
        return f"{part} {plain(difference.what, 200)}{both}".strip()
    d = difference
    facts = [f"by at most {d.absolute:.3g} ({_share(d.relative)})"] if d.differing > d.lone_nans else []
    facts += [f"NaN in only one at {d.lone_nans}"] if d.lone_nans else []
    what = "integers" if d.integers else "values"
    return f"{part} {d.differing} of {d.size} {what}, {', '.join(facts)}"


def _not_compared(comparison: Comparison) -> list[str]:
    compared = {i.item.path for i in comparison.items}
    kinds = Counter(Path(f).suffix for f in (comparison.a.others | comparison.b.others) - compared)
    if not kinds:
        return []
    names = ", ".join(f"{plain(ending or 'without ending')} ({kinds[ending]})" for ending in sorted(kinds))
    return [
        f"{names}; pages and figures are drawn from what is compared, "
        "stores hold what is used of recordings, logs, checksums and the record tell of the run"
    ]
