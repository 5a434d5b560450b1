"""Names in profiles and options of Snakemake: a mistyped one changes nothing, and nobody would say so."""

import difflib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from colatent.errors import InputError

# options whose value may be a mapping; any other mapping Snakemake passes over
MAPPINGS = {
    "batch",
    "config",
    "consider-ancient",
    "default-resources",
    "group-components",
    "groups",
    "resources",
    "set-resource-scopes",
    "set-resources",
    "set-scatter",
    "set-threads",
}

# what a key of these options names; those of set-resources name a rule, and its keys a resource
NAMED = {
    "batch": "rule",
    "consider-ancient": "rule",
    "default-resources": "resource",
    "group-components": "group",
    "groups": "rule",
    "resources": "resource",
    "set-resource-scopes": "resource",
    "set-threads": "rule",
}

# those of Snakemake, of our rules, and of its plugin for SLURM (a test reads them out of the plugin)
RESOURCES = {
    *("mem", "mem_mb", "mem_mib", "disk", "disk_mb", "disk_mib", "runtime", "threads", "tmpdir"),
    *("gpu", "gpu_model", "gres", "cpus_per_task", "cpus_per_gpu", "mem_mb_per_cpu", "mpi"),
    *("nodes", "tasks", "tasks_per_node", "tasks_per_gpu", "constraint", "qos", "cluster", "clusters"),
    *("slurm_account", "slurm_cluster", "slurm_extra", "slurm_partition"),
}

# `gpus` and `mem_gb` resemble a name; `partition` and `lsf_extra`, of other executors, do not
ALIKE = 0.76

# what resembles no name, and other executors may have: mistyped where none of them is named
SYNONYMS = {
    **dict.fromkeys(("n_gpu", "n_gpus", "ngpus", "num_gpu", "num_gpus", "gpu_count"), "gpu"),
    **dict.fromkeys(("gpu_type", "gpu_name"), "gpu_model"),
    **dict.fromkeys(("cpu", "cpus", "n_cpus", "ncpus", "num_cpus"), "cpus_per_task"),
    **dict.fromkeys(("memory", "ram"), "mem"),
    **dict.fromkeys(("time", "walltime"), "runtime"),
    "partition": "slurm_partition",
    "account": "slurm_account",
}
OWN_EXECUTORS = {"local", "slurm"}


class Known(NamedTuple):
    """The right names: Snakemake's long options, the workflow's rules and the groups of its jobs."""

    options: Collection[str]
    rules: Collection[str]
    groups: Collection[str]


class Source(NamedTuple):
    """What a profile, or the command line, says: option -> value; and whether other workflows share it."""

    name: str
    options: Mapping[str, Any]
    shared: bool = False


def check_names(sources: Sequence[Source], known: Known) -> list[str]:
    """Raise InputError, one sentence a name, if what is said to Snakemake names what there is not.

    A resource counts as mistyped if it resembles a known one or is a synonym; where a source names another
    executor, only if it differs from a known one in case.

    Returns:
        Such sentences on rules, groups and resources that another workflow may have.
    """
    joined = {
        group for source in sources for entry in _entries(source.options.get("groups")) for group in entry[1:]
    }
    known = known._replace(groups={*known.groups, *joined})
    executors = {str(said) for source in sources if (said := source.options.get("executor"))}
    meant = _meant if executors <= OWN_EXECUTORS else _spelt_otherwise
    refused: list[str] = []
    doubted: list[str] = []
    for source in sources:
        refused += [f"{source.name}: {problem}" for problem in _wrong_options(source.options, known)]
        names = [f"{source.name}: {problem}" for problem in _wrong_names(source.options, known, meant)]
        (doubted if source.shared else refused).extend(names)
    if refused:
        raise InputError("\n".join(refused))
    return doubted


def _wrong_options(options: Mapping[str, Any], known: Known) -> Iterator[str]:
    for option, value in options.items():
        if option not in known.options:
            yield f"there is no option {option!r}; {_suggestion(option, known.options)}"
        elif isinstance(value, Mapping) and option not in MAPPINGS:
            yield f"{option} takes no `name: value` pairs; Snakemake would pass over it"


def _wrong_names(
    options: Mapping[str, Any], known: Known, meant: Callable[[str], str | None]
) -> Iterator[str]:
    names = {"rule": known.rules, "group": known.groups}
    for option, value in options.items():
        for kind, name in _named(option, value):
            if kind == "resource":
                if name not in RESOURCES and (near := meant(name.lower())):
                    yield f"{option}: there is no resource {name!r}; did you mean {near}?"
            elif name not in names[kind]:
                yield f"{option}: there is no {kind} {name!r}; {_suggestion(name, names[kind])}"


def _named(option: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield what kind of thing each key of an option names, and its name."""
    if option == "set-resources" and isinstance(value, Mapping):
        for rule, of_rule in value.items():
            yield "rule", str(rule)
            yield from (("resource", str(name)) for name in of_rule or ())
    elif option == "set-resources":
        for entry in _entries(value):
            rule, _, resource = entry[0].partition(":")
            yield from (("rule", rule), ("resource", resource))
    elif kind := NAMED.get(option):
        for name, *_ in _entries(value):
            yield kind, name


def _entries(value: Any) -> list[list[str]]:
    """Return the pairs of a value: a mapping, a list of `name=value`, or one of these alone."""
    if value is None:
        return []
    if isinstance(value, Mapping):
        return [[str(name), str(of_name)] for name, of_name in value.items()]
    listed = value if isinstance(value, list) else [value]
    return [[part.strip() for part in str(entry).split("=", 1)] for entry in listed]


def _meant(name: str) -> str | None:
    """Return the known resource that a name in lower case stands for, or resembles."""
    return SYNONYMS.get(name) or _alike(name)


def _spelt_otherwise(name: str) -> str | None:
    """Return the resource from which a name differs in case only; executors have resources of their own."""
    return name if name in RESOURCES else None


def _alike(name: str) -> str | None:
    """Return the known resource that a name resembles, letters in another order (`gup`) included."""
    near = difflib.get_close_matches(name, sorted(RESOURCES), 1, ALIKE)
    return next(iter(near), None) or next((r for r in sorted(RESOURCES) if sorted(r) == sorted(name)), None)


def _suggestion(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, sorted(known), 1)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}"
