# One job a run. Exit status 3 is a run that diverged: recorded in run.json, a hole in the tables.
# checkpoint.pt lies undeclared in the run folder, so that an interrupted job goes on from it.
def job_of(wildcards):
    return JOBS[f"{wildcards.dataset}/{wildcards.run}/seed{wildcards.seed}"]


rule train_run:
    input:
        manifest=f"{OUT}/data/{{dataset}}.json",
        tracking=ancient(f"{OUT}/logs/track-init.done"),
    output:
        run=f"{RUN}/run.json",
        metrics=f"{RUN}/metrics.jsonl",
        best=f"{RUN}/best.safetensors",
    log:
        f"{RUN}/train.log",
    threads: lambda wildcards: job_of(wildcards).threads
    resources:
        gpu=0 if config["device"] == "cpu" or not HAS_GPU else 1,
        mem_mb=4000,
    params:
        code=code_digest("harness.train.commands", "harness.train.run"),
        recipe=lambda wildcards: job_of(wildcards).recipe_digest,
        arguments=lambda wildcards: job_of(wildcards).arguments,
        preset=PRESET["name"],
        folder=subpath(output.run, parent=True),
    shell:
        "OMP_NUM_THREADS={threads} bnn train {params.arguments} --data {config[data]:q}"
        " --out {params.folder} --preset {params.preset} --device {config[device]}"
        " --threads {threads} {config[mirror]} >> {log} 2>&1"
        " || [ $? -eq 3 ]"
