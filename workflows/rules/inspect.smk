# What each trained network looks like inside, of every mode: weights, filters, confusion.
rule inspect:
    input:
        manifest=f"{OUT}/data/{{dataset}}.json",
        run=rules.train_run.output.run,
        best=rules.train_run.output.best,
    output:
        record=f"{RUN}/inspect.json",
    log:
        f"{RUN}/inspect.log",
    threads: 1
    resources:
        mem_mb=4000,
    params:
        code=code_digest("harness.inspect.run"),
        folder=subpath(input.run, parent=True),
    shell:
        "OMP_NUM_THREADS={threads} bnn inspect --run {params.folder} --data {config[data]:q}"
        " --threads {threads} > {log} 2>&1"
