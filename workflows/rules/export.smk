# Binary weights packed, batch norm and sign folded to integer thresholds.
# model.bnn lies beside export.json, undeclared: a run that diverged has a record but no model.
rule export:
    input:
        run=rules.train_run.output.run,
        best=rules.train_run.output.best,
    output:
        f"{RUNS}/{{dataset}}/{{run}}/seed{{seed}}/export.json",
    log:
        f"{RUNS}/{{dataset}}/{{run}}/seed{{seed}}/export.log",
    params:
        code=code_digest("harness.deploy.export"),
        folder=lambda wildcards, input: os.path.dirname(input.run),
    shell:
        "OMP_NUM_THREADS=1 bnn export --run {params.folder} > {log} 2>&1"
