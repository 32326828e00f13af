# Kernels against each other, one case a job; a job takes every core, so that nothing disturbs it.
rule bench_case:
    output:
        samples=f"{OUT}/bench/{MACHINE}/{{case}}.json",
    log:
        f"{OUT}/logs/bench-{{case}}.log",
    threads: workflow.cores
    resources:
        gpu=1,
        mem_mb=4000,
    params:
        code=code_digest("harness.bench.commands", "harness.bench.suite", "harness.bench.plugin"),
        kernels=" ".join(f"--kernel {kernel}" for kernel in PRESET["bench"]["kernels"]),
        seconds=PRESET["bench"]["seconds"],
        folder=subpath(output.samples, ancestor=2),
    shell:
        "bnn bench --case {wildcards.case} {params.kernels} --seconds {params.seconds}"
        " --threads {threads} --out {params.folder} > {log} 2>&1"
