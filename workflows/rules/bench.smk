# Kernels against each other, one case a job; a job takes every core, so that nothing disturbs it.
rule bench_case:
    output:
        f"{OUT}/bench/{MACHINE}/{{case}}.json",
    log:
        f"{OUT}/logs/bench-{{case}}.log",
    threads: workflow.cores
    resources:
        gpu=1,
    params:
        code=code_digest("harness.bench.commands", "harness.bench.suite"),
        kernels=" ".join(f"--kernel {kernel}" for kernel in PRESET["bench"]["kernels"]),
        seconds=PRESET["bench"]["seconds"],
    shell:
        "bnn bench --case {wildcards.case} {params.kernels} --seconds {params.seconds}"
        " --threads {threads} --out {OUT}/bench > {log} 2>&1"
