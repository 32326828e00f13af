# Run folders and bench files as tidy frames.
FRAMES = [f"{OUT}/{frame}.csv" for frame in FRAME_NAMES]


rule collect:
    input:
        runs=RUN_FILES,
        evaluations=EVALUATIONS,
        inspections=INSPECTIONS,
        bench=BENCH_FILES,
    output:
        frames=FRAMES,
    log:
        f"{OUT}/logs/collect.log",
    threads: 1
    resources:
        mem_mb=1000,
    params:
        code=code_digest("harness.report.collect", data=("harness/recipes/*.yaml",)),
        folder=OUT,
    shell:
        "bnn collect --results {params.folder} > {log} 2>&1"
