# Table of contents: data -> train -> export -> evaluate, bench -> collect -> report.
#   snakemake --cores all                                      the quick preset, on stand-ins
#   snakemake --cores all --config preset=cpu data=FOLDER      real data, reduced networks
#   targets: all, train, bench, tables, figures, report
from snakemake.utils import min_version

min_version("9.20")


report: "workflows/report/workflow.rst"


include: "workflows/rules/common.smk"
include: "workflows/rules/data.smk"
include: "workflows/rules/track.smk"
include: "workflows/rules/train.smk"
include: "workflows/rules/examine.smk"
include: "workflows/rules/bench.smk"
include: "workflows/rules/collect.smk"
include: "workflows/rules/report.smk"


rule all:
    default_target: True
    input:
        rules.report.input,
        rules.tracked.output,


rule train:
    input:
        RUN_FILES,


rule bench:
    input:
        BENCH_FILES,


onsuccess:
    if Path(PAGE).exists():
        print(f"The page: {PAGE}", file=sys.stderr)
