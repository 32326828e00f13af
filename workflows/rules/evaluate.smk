# The packed network on every test image with every kernel, in one process a run: a process costs
# seconds to start, a kernel less.
rule evaluate:
    input:
        manifest=f"{OUT}/data/{{dataset}}.json",
        export=rules.export.output.record,
    output:
        records=[f"{RUN}/evaluate-{kernel}.json" for kernel in KERNELS],
    log:
        f"{RUN}/evaluate.log",
    threads: 1
    resources:
        mem_mb=4000,
    params:
        code=code_digest("harness.deploy.evaluate"),
        folder=subpath(input.export, parent=True),
        kernels=" ".join(f"--kernel {kernel}" for kernel in KERNELS),
    shell:
        "OMP_NUM_THREADS={threads} bnn evaluate --run {params.folder} --data {config[data]:q}"
        " {params.kernels} --threads {threads} > {log} 2>&1"
