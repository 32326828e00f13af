# Run folders and bench files as tidy frames.
FRAMES = expand(f"{OUT}/{{frame}}.csv", frame=["runs", "epochs", "evaluations", "kernels"])


rule collect:
    input:
        RUN_FILES,
        EVALUATIONS,
        BENCH_FILES,
    output:
        FRAMES,
    log:
        f"{OUT}/logs/collect.log",
    params:
        code=code_digest("harness.report.collect"),
    shell:
        "bnn collect --results {OUT} > {log} 2>&1"
