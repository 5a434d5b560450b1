"""From NWB recordings to held-out reports: simulate > ingest > split > fit > score > report."""

from snakemake.utils import min_version

min_version("9.27")


# The demo, unless --configfile gives an analysis: Snakemake would merge the two.
if not {"sessions", "modalities", "models"} & config.keys():

    configfile: "config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/simulate.smk"
include: "workflow/rules/ingest.smk"
include: "workflow/rules/split.smk"
include: "workflow/rules/choose.smk"
include: "workflow/rules/fit.smk"
include: "workflow/rules/score.smk"
include: "workflow/rules/learn.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/export.smk"
include: "workflow/rules/record.smk"


report: "workflow/report/workflow.rst"


wildcard_constraints:
    session=one_of(SESSIONS),
    model=one_of(CONFIG.models),
    fold=r"\d+",
    seed=r"\d+",


localrules:
    all,
    choose_latents,
    learning_curves,
    # seconds each: as jobs of a cluster they would mostly wait
    simulate,
    split,
    scores,
    record,
    latent_choice_figure,
    learning_curve_figure,


rule all:
    default_target: True
    input:
        rules.scores.output.scores,
        rules.report.output.page,
        rules.record.output.record,


onstart:
    with one_sentence():
        hold_results(RESULTS)
        write_plan(RESULTS, SESSIONS, CONFIG.models, FOLDS, SEEDS)


onsuccess:
    if Path(f"{RESULTS}/report/index.html").is_file():
        print(
            f"Report: {RESULTS}/report/index.html    Scores: {RESULTS}/scores.csv"
        )
