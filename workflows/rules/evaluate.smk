# The packed network on every test image with every kernel, in one process a run.
rule evaluate:
    input:
        manifest=f"{OUT}/data/{{dataset}}.json",
        export=rules.export.output,
    output:
        expand(
            f"{RUNS}/{{{{dataset}}}}/{{{{run}}}}/seed{{{{seed}}}}/evaluate-{{kernel}}.json",
            kernel=KERNELS,
        ),
    log:
        f"{RUNS}/{{dataset}}/{{run}}/seed{{seed}}/evaluate.log",
    params:
        code=code_digest("harness.deploy.evaluate"),
        folder=lambda wildcards, input: os.path.dirname(str(input.export)),
        kernels=" ".join(f"--kernel {kernel}" for kernel in KERNELS),
    shell:
        "OMP_NUM_THREADS=1 bnn evaluate --run {params.folder} --data {DATA} {params.kernels}"
        " --threads {threads} > {log} 2>&1"
