# One job a run. Exit status 3 is a run that diverged: recorded in run.json, a hole in the tables.
# checkpoint.pt lies undeclared in the run folder, so that an interrupted job goes on from it.
def job_of(wildcards):
    return JOBS[f"{wildcards.dataset}/{wildcards.run}/seed{wildcards.seed}"]


def train_threads(wildcards):
    return job_of(wildcards).threads


rule train_run:
    input:
        manifest=f"{OUT}/data/{{dataset}}.json",
        tracking=ancient(f"{OUT}/logs/track-init.done"),
    output:
        run=f"{RUNS}/{{dataset}}/{{run}}/seed{{seed}}/run.json",
        metrics=f"{RUNS}/{{dataset}}/{{run}}/seed{{seed}}/metrics.jsonl",
        best=f"{RUNS}/{{dataset}}/{{run}}/seed{{seed}}/best.safetensors",
    log:
        f"{RUNS}/{{dataset}}/{{run}}/seed{{seed}}/train.log",
    threads: train_threads
    resources:
        gpu=0 if DEVICE == "cpu" else 1,
        mem_mb=4000,
    params:
        code=code_digest("harness.train.commands", "harness.train.run"),
        recipe=lambda wildcards: job_of(wildcards).recipe_digest,
        arguments=lambda wildcards: job_of(wildcards).arguments,
        folder=lambda wildcards, output: os.path.dirname(output.run),
        track="" if TRACK == "off" else f"--track {TRACK}",
    shell:
        "OMP_NUM_THREADS={threads} bnn train {params.arguments} --data {DATA}"
        " --out {params.folder} --preset {PRESET[name]} --device {DEVICE}"
        " --threads {threads} {params.track} >> {log} 2>&1"
        " || [ $? -eq 3 ]"
