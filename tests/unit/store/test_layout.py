"""The one table of what lies where in a tree of results."""

import pytest
from support import make_config

from colatent.config.checks import CHECKS
from colatent.store.layout import OUTPUTS, RESERVED, ingest_settings, output_of, tracked, what_lies_at

WILDCARDS = {"session": "rat.1", "model": "gpfa", "fold": 2, "seed": 0, "file": "figures/a.png"}


@pytest.mark.parametrize("output", OUTPUTS, ids=lambda output: output.path)
def test_each_output_is_found_where_it_lies(output):
    found = what_lies_at(output.path.format(**WILDCARDS))
    assert found is not None and found[0].rule == output.rule
    assert all(str(WILDCARDS[name]) == value for name, value in found[1].items() if name != "file")


def test_snakemake_makes_a_store_by_its_marker_and_a_figure_by_its_page():
    assert tracked("rat/split") == "rat/split/complete.json"
    assert tracked("paired_differences.csv") == tracked("SHA256SUMS") == tracked("scores.csv") == "scores.csv"
    page = "report/sessions/rat/models/gpfa"
    assert tracked(f"{page}/figures/a.png") == tracked(f"{page}/SHA256SUMS") == f"{page}/index.html"
    assert tracked("report/figures/a.png") == "report/index.html"
    assert tracked("rat/latents/gpfa.nwb") == "rat/latents/gpfa.nwb" and tracked("mine.txt") == "mine.txt"


def test_no_session_has_the_name_of_what_lies_beside_them():
    names = {"logs", "report", "scores.csv", "paired_differences.csv", "latent_recovery.csv", "made_with"}
    assert names | {"provenance.json", "data.zarr", "scores.log", "report.log", "record.log"} <= RESERVED
    assert output_of("fit", "store") == "{session}/fit/{model}/fold-{fold}_seed-{seed}"


def test_a_session_depends_on_what_checks_do_by_default(tmp_path, monkeypatch):
    config = make_config(tmp_path, ["spikes"])
    before = ingest_settings(config)
    written_out = config.model_copy(update={"checks": {"artefact": CHECKS["artefact"].default}})
    assert ingest_settings(written_out) == before and before["counts"] == ["spikes"]
    monkeypatch.setitem(CHECKS, "artefact", CHECKS["artefact"]._replace(default="mask"))
    assert ingest_settings(config) != before
