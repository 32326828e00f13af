# What follows a training. A BNN is exported (binary weights packed, batch norm and sign folded to
# integer thresholds), evaluated on every test image with every kernel, and inspected, in one
# process: a process costs seconds to start, a stage less. Other modes have no packed form.
# model.bnn lies beside export.json, undeclared: a run that diverged has a record but no model.
rule examine:
    input:
        manifest=f"{OUT}/data/{{dataset}}.json",
        run=rules.train_run.output.run,
        best=rules.train_run.output.best,
    output:
        export=f"{RUN}/export.json",
        evaluations=[f"{RUN}/evaluate-{kernel}.json" for kernel in KERNELS],
        inspection=f"{RUN}/inspect.json",
    log:
        f"{RUN}/examine.log",
    wildcard_constraints:
        run=BNN_RUNS,
    threads: 1
    resources:
        mem_mb=4000,
    params:
        code=code_digest("harness.deploy.export", "harness.deploy.evaluate", "harness.inspect.run"),
        folder=subpath(input.run, parent=True),
        kernels=" ".join(f"--kernel {kernel}" for kernel in KERNELS),
    shell:
        "OMP_NUM_THREADS={threads} bnn examine --run {params.folder} --data {config[data]:q}"
        " {params.kernels} --threads {threads} > {log} 2>&1"


rule inspect:
    input:
        manifest=f"{OUT}/data/{{dataset}}.json",
        run=rules.train_run.output.run,
        best=rules.train_run.output.best,
    output:
        inspection=f"{RUN}/inspect.json",
    log:
        f"{RUN}/inspect.log",
    wildcard_constraints:
        run=rf"(?!(?:{BNN_RUNS})/)[a-z0-9+-]+",
    threads: 1
    resources:
        mem_mb=4000,
    params:
        code=code_digest("harness.inspect.run"),
        folder=subpath(input.run, parent=True),
    shell:
        "OMP_NUM_THREADS={threads} bnn inspect --run {params.folder} --data {config[data]:q}"
        " --threads {threads} > {log} 2>&1"
