"""Names in a profile that are not there, with the nearest that is; and what executors of other labs use."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from colatent.errors import InputError
from colatent.jobs.profile import (
    RESOURCES,
    Known,
    Source,
    check_names,
)

ROOT = Path(__file__).parents[3]
KNOWN = Known(
    options=[
        *("cores", "executor", "jobs", "keep-going", "retries", "groups", "group-components"),
        *("resources", "default-resources", "set-resources", "set-resource-scopes", "set-threads"),
    ],
    rules=["fit", "score", "model_page", "session_page"],
    groups=["baselines"],
)


def source(text: str, name: str = "my/config.yaml", shared: bool = False) -> Source:
    return Source(name, yaml.safe_load(text), shared)


def check(text: str) -> None:
    assert check_names([source(text)], KNOWN) == []


@pytest.mark.parametrize(
    ("text", "option", "wrong", "right"),
    [
        ("default-resouces: {mem_mb: 1}", "option", "default-resouces", "default-resources"),
        ("set-thredas: {fit: 4}", "option", "set-thredas", "set-threads"),
        ("retrys: 2", "option", "retrys", "retries"),
        (
            "default-resources: {slurm_partitoin: main}",
            "default-resources",
            "slurm_partitoin",
            "slurm_partition",
        ),
        ("default-resources: [mem_mbb=4]", "default-resources", "mem_mbb", "mem_mb"),
        ("default-resources: mem_mbb=4", "default-resources", "mem_mbb", "mem_mb"),
        ("set-resources: {fitt: {mem_mb: 1}}", "set-resources", "fitt", "fit"),
        ("set-resources: {fit: {gpu_modle: a100}}", "set-resources", "gpu_modle", "gpu_model"),
        ("set-resources: {fit: {rutime: 400}}", "set-resources", "rutime", "runtime"),
        ("set-resources: ['fit:rutime=400']", "set-resources", "rutime", "runtime"),
        ("set-resources: ['fitt:runtime=400']", "set-resources", "fitt", "fit"),
        ("set-threads: {fitt: 4}", "set-threads", "fitt", "fit"),
        ("set-threads: [fitt=4]", "set-threads", "fitt", "fit"),
        ("resources: {gpus: 8}", "resources", "gpus", "gpu"),
        ("resources: {gup: 2}", "resources", "gup", "gpu"),
        ("resources: {mem_bm: 60000}", "resources", "mem_bm", "mem_mb"),
        ("resources: {mem_gb: 60}", "resources", "mem_gb", "mem_mb"),
        ("resources: {GPU: 2}", "resources", "GPU", "gpu"),
        ("{executor: lsf, set-resources: {fit: {Gpu: 2}}}", "set-resources", "Gpu", "gpu"),
        ("default-resources: {MEM_MB: 2}", "default-resources", "MEM_MB", "mem_mb"),
        ("default-resources: {Mem_Mbb: 2}", "default-resources", "Mem_Mbb", "mem_mb"),
        ("resources: {num_gpus: 2}", "resources", "num_gpus", "gpu"),
        ("resources: {nGPUs: 2}", "resources", "nGPUs", "gpu"),
        ("set-resources: {fit: {n_gpu: 2}}", "set-resources", "n_gpu", "gpu"),
        ("set-resources: {fit: {gpu_type: a100}}", "set-resources", "gpu_type", "gpu_model"),
        ("set-resources: {fit: {cpus: 2}}", "set-resources", "cpus", "cpus_per_task"),
        ("{executor: local, set-resources: {fit: {memory: 8GB}}}", "set-resources", "memory", "mem"),
        ("default-resources: {walltime: 60}", "default-resources", "walltime", "runtime"),
        ("default-resources: {time: 60}", "default-resources", "time", "runtime"),
        (
            "{executor: slurm, default-resources: {partition: main}}",
            "default-resources",
            "partition",
            "slurm_partition",
        ),
        ("set-resources: {fit: {account: mine}}", "set-resources", "account", "slurm_account"),
        ("set-resource-scopes: {gup: local}", "set-resource-scopes", "gup", "gpu"),
        ("groups: [model_pagee=pages]", "groups", "model_pagee", "model_page"),
        ("{groups: [model_page=pages], group-components: [pagse=8]}", "group-components", "pagse", "pages"),
        ("group-components: {baseline: 8}", "group-components", "baseline", "baselines"),
    ],
)
def test_a_mistyped_name_is_one_sentence(text: str, option: str, wrong: str, right: str) -> None:
    with pytest.raises(InputError) as error:
        check(text)
    sentence = str(error.value)
    assert "\n" not in sentence and sentence.startswith("my/config.yaml: ")
    assert option in sentence and repr(wrong) in sentence and sentence.endswith(f"did you mean {right}?")


def test_what_resembles_nothing_is_told_what_there_is() -> None:
    with pytest.raises(InputError, match="there is no rule 'xyz'; there are fit, model_page, score"):
        check("set-threads: {xyz: 4}")


def test_pairs_that_snakemake_passes_over_are_an_error() -> None:
    with pytest.raises(InputError, match="jobs takes no `name: value` pairs"):
        check("jobs: {fit: 4}")


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(InputError) as error:
        check("{set-threads: {fitt: 4}, resources: {gup: 1}}")
    assert len(str(error.value).splitlines()) == 2


def test_names_of_a_shared_profile_may_be_another_workflow_s() -> None:
    text = "{set-threads: {fitt: 4, fit: 4}, resources: {gpus: 1}}"
    assert check_names([source(text, "site.yaml", shared=True)], KNOWN) == [
        "site.yaml: set-threads: there is no rule 'fitt'; did you mean fit?",
        "site.yaml: resources: there is no resource 'gpus'; did you mean gpu?",
    ]


def test_an_option_that_is_none_is_refused_in_a_shared_profile() -> None:
    with pytest.raises(InputError, match=r"site\.yaml: there is no option 'set-thredas'"):
        check_names([source("set-thredas: {fit: 2}", "site.yaml", shared=True)], KNOWN)


def test_a_group_may_be_joined_in_another_profile() -> None:
    groups = source("groups: [model_page=pages]", "site.yaml", shared=True)
    assert check_names([groups, source("group-components: [pages=8]")], KNOWN) == []


@pytest.mark.parametrize(
    "name",
    ["partition", "account", "queue", "lsf_extra", "lsf_queue", "time", "walltime", "nvidia_gpu", "ngpus"],
)
def test_resources_of_other_executors_are_let_through(name: str) -> None:
    check(f"{{executor: lsf, default-resources: {{{name}: 1}}}}")
    check(f"{{executor: lsf, set-resources: {{fit: {{{name}: 1}}}}}}")


@pytest.mark.parametrize("name", ["mem_gb", "ntasks", "gpus", "disk_gb", "mem_per_cpu", "runtime_min"])
def test_of_other_executors_a_resource_may_resemble_ours(name: str) -> None:
    check(f"{{executor: cluster-generic, default-resources: {{{name}: 8}}}}")


def test_another_executor_may_be_named_elsewhere_than_its_resources() -> None:
    profile = source("{executor: local, default-resources: {partition: 1}}")
    assert check_names([profile, source("executor: cluster-generic", "command line")], KNOWN) == []


@pytest.mark.parametrize("name", ["queue", "lsf_extra", "lsf_queue", "nvidia_gpu"])
def test_resources_that_resemble_none_are_let_through(name: str) -> None:
    check(f"default-resources: {{{name}: 1}}")


def test_what_is_right_is_let_through() -> None:
    check("{groups: {model_page: pages}, group-components: {pages: 8, baselines: 8}, default-resources: }")
    check("{default-resources: bare, resources: {gpu: 8, mem_mb: 60000}, set-resources: {fit: {mem: 4GB}}}")


def test_all_resources_of_the_plugin_and_the_rules_are_known() -> None:
    plugin = find_spec("snakemake_executor_plugin_slurm")
    if plugin is None or plugin.origin is None:
        pytest.skip("the plugin for SLURM is not installed")
    sources = "".join(file.read_text() for file in Path(plugin.origin).parent.glob("*.py"))
    assert set(re.findall(r"resources\.get\(\s*\"(\w+)\"", sources)) <= RESOURCES
    rules = "".join(file.read_text() for file in (ROOT / "workflow/rules").glob("*.smk"))
    sections = re.findall(r"    resources:\n((?:        .*\n)+)", rules)
    assert sections and set(re.findall(r"^ {8}(\w+)=", "".join(sections), re.MULTILINE)) <= RESOURCES
