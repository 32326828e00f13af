# Binary weights packed, batch norm and sign folded to integer thresholds.
# model.bnn lies beside export.json, undeclared: a run that diverged has a record but no model.
rule export:
    input:
        run=rules.train_run.output.run,
        best=rules.train_run.output.best,
    output:
        record=f"{RUN}/export.json",
    log:
        f"{RUN}/export.log",
    threads: 1
    resources:
        mem_mb=2000,
    params:
        code=code_digest("harness.deploy.export"),
        folder=subpath(input.run, parent=True),
    shell:
        "OMP_NUM_THREADS={threads} bnn export --run {params.folder} > {log} 2>&1"
