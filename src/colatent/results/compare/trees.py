"""Two result trees, item by item: verdict, and since which stage they differ."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from colatent.results.compare.contents import (
    MODEL_STAGES,
    SESSION_STAGES,
    Item,
    Tree,
    read_tree,
)
from colatent.results.compare.differences import (
    Difference,
    Differs,
    Leaf,
    compare_arrays,
    compare_attrs,
    compare_datasets,
    differing_leaves,
    only_in_one,
)
from colatent.results.compare.exports import compare_exports
from colatent.results.compare.tables import compare_tables
from colatent.store.stores import (
    group_names,
    read_attrs,
    read_group,
    read_tensors,
    tensor_names,
)

# where a result comes from: reported as causes, no part of the verdict (the same numbers from other code
# are the same numbers); `source` repeats `inputs.nwb`
ORIGIN = ("settings", "inputs", "code", "versions", "device")
_NO_CONTENT = (*ORIGIN, "stage", "source", "volatile")


class Verdict(Enum):
    """What a comparison comes to."""

    IDENTICAL = "identical"
    WITHIN = "equal within"
    DIFFERENT = "different"


@dataclass(frozen=True)
class Compared:
    """One store or file: how its content differs, and how its provenance."""

    item: Item
    differences: tuple[Difference, ...]
    origins: tuple[Leaf, ...] = ()

    @property
    def excess(self) -> float:
        """The smallest tolerance that lets this pass; negative if it is identical."""
        return max((d.excess for d in self.differences), default=-1.0)


class Since(NamedTuple):
    """The first stage at which a session, or one of its models, differs ("" if it does not), and why."""

    session: str
    model: str
    stage: str
    causes: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """Two trees compared; ``items`` are in the order of the pipeline.

    Attributes:
        tolerance: share of an array's largest magnitude that numbers may differ by; None if not at all.
    """

    a: Tree
    b: Tree
    items: tuple[Compared, ...]
    tolerance: float | None = None

    @property
    def excess(self) -> float:
        return max(i.excess for i in self.items)

    @property
    def verdict(self) -> Verdict:
        if self.excess < 0:
            return Verdict.IDENTICAL
        within = self.tolerance is not None and self.excess <= self.tolerance
        return Verdict.WITHIN if within else Verdict.DIFFERENT

    def differs(self, item: Compared) -> bool:
        """Does an item differ by more than the tolerance, or at all if all that differs is within?"""
        if self.tolerance is None or self.verdict is Verdict.WITHIN:
            return item.excess >= 0
        return item.excess > self.tolerance

    def since(self) -> Iterator[Since]:
        """Yield since when each session differs; where that depends on the model, one for each model."""
        in_sessions = [i for i in self.items if i.item.stage in SESSION_STAGES + MODEL_STAGES]
        for session in dict.fromkeys(i.item.session for i in in_sessions):
            of_session = [i for i in in_sessions if i.item.session == session]
            whole = self._first("", [i for i in of_session if not i.item.model])
            if whole.stage or not any(map(self.differs, of_session)):
                yield whole._replace(session=session)
                continue
            models = dict.fromkeys(i.item.model for i in of_session if i.item.model)
            for model in models:
                first = self._first(model, [i for i in of_session if i.item.model == model])
                yield first._replace(session=session)

    def _first(self, model: str, items: list[Compared]) -> Since:
        stage = next((i.item.stage for i in items if self.differs(i)), "")
        return Since("", model, stage, _causes([i for i in items if i.item.stage == stage]))


def _causes(items: list[Compared]) -> tuple[str, ...]:
    """Return what the provenance of one stage's stores names: the setting or input itself, or the kind."""
    only = [d.what for i in items for d in i.differences if isinstance(d, Differs) and not d.part]
    paths = [leaf.path for i in items for leaf in i.origins]
    kinds = [p if p.startswith(("settings", "inputs")) else p.split(".")[0] for p in paths]
    return tuple(dict.fromkeys(only + kinds))


def compare_trees(a: Path, b: Path, tolerance: float | None = None) -> Comparison:
    """Compare two result trees; one group of each is in memory at a time.

    Args:
        a, b: folders such as ``results/demo``.
        tolerance: numbers may differ by this share of the largest magnitude in their array.

    Raises:
        InputError: a folder is no result tree, or holds a damaged or incomplete store or file.
    """
    one, other = read_tree(a), read_tree(b)
    items = [
        *_compare_each(one.stores, other.stores, lambda path: _compare_stores(path, one, other)),
        *_compare_each(one.tables, other.tables, lambda path: _compare_files(compare_tables, path, a, b)),
        *_compare_each(one.exports, other.exports, lambda path: _compare_files(compare_exports, path, a, b)),
        *_in_one_only(one.expected, other.expected),
    ]
    return Comparison(one, other, tuple(sorted(items, key=lambda i: i.item.order)), tolerance)


def _compare_each(
    a: frozenset[str], b: frozenset[str], compare: Callable[[str], Compared]
) -> Iterator[Compared]:
    yield from map(compare, a & b)
    yield from _in_one_only(a, b)


def _in_one_only(a: frozenset[str], b: frozenset[str]) -> Iterator[Compared]:
    for path in a ^ b:
        yield Compared(Item.at(path), (Differs("", "only in A" if path in a else "only in B"),))


def _compare_files(
    differences: Callable[[Path, Path], list[Difference]], path: str, a: Path, b: Path
) -> Compared:
    return Compared(Item.at(path), tuple(differences(a / path, b / path)))


def _compare_stores(path: str, a: Tree, b: Tree) -> Compared:
    folders = a.folder / path, b.folder / path
    attrs = [read_attrs(f) for f in folders]
    contents = [{k: v for k, v in x.items() if k not in _NO_CONTENT} for x in attrs]
    origins = [{k: x[k] for k in ORIGIN if k in x} for x in attrs]
    groups = [group_names(f) for f in folders]
    found: list[Difference] = [*compare_attrs("store", *contents), *only_in_one("group ", *groups)]
    for group in sorted(set(groups[0]) & set(groups[1])):
        found += compare_datasets(group, *(read_group(f, group) for f in folders))
    tensors = [tensor_names(f) for f in folders]
    found += only_in_one("tensors ", *tensors)
    for name in sorted(set(tensors[0]) & set(tensors[1])):
        found += compare_arrays(name, *(read_tensors(f, name) for f in folders))
    return Compared(Item.at(path), tuple(found), tuple(differing_leaves(origins[0], origins[1])))
