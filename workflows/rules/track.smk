# MLflow mirrors the run folders. It may be missing or down: nothing here stops the workflow.
rule track_init:
    output:
        done=touch(f"{OUT}/logs/track-init.done"),
    log:
        f"{OUT}/logs/track-init.log",
    threads: 1
    resources:
        mem_mb=1000,
    params:
        command="bnn track init" if TRACKED else "true",
        preset=PRESET["name"],
    shell:
        "{params.command} --uri {config[track]:q} --preset {params.preset} > {log} 2>&1"
        " || cat {log} >&2"


rule tracked:
    input:
        runs=RUN_FILES,
        evaluations=EVALUATIONS,
    output:
        done=touch(f"{OUT}/logs/tracked.done"),
    log:
        f"{OUT}/logs/tracked.log",
    threads: 1
    resources:
        mem_mb=1000,
    params:
        command="bnn track sync" if TRACKED else "true",
        folder=OUT,
    shell:
        "{params.command} --uri {config[track]:q} --runs {params.folder} > {log} 2>&1"
        " || cat {log} >&2"
