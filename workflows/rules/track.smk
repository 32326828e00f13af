# MLflow mirrors the run folders. It may be missing or down: nothing here stops the workflow.
rule track_init:
    output:
        touch(f"{OUT}/logs/track-init.done"),
    log:
        f"{OUT}/logs/track-init.log",
    params:
        command=(
            "true" if TRACK == "off" else f"bnn track init --uri {TRACK} --preset {PRESET['name']}"
        ),
    shell:
        "{params.command} > {log} 2>&1 || cat {log} >&2"


rule tracked:
    input:
        RUN_FILES,
        EVALUATIONS,
    output:
        touch(f"{OUT}/logs/tracked.done"),
    log:
        f"{OUT}/logs/tracked.log",
    params:
        command="true" if TRACK == "off" else f"bnn track sync --uri {TRACK} --runs {OUT}",
    shell:
        "{params.command} > {log} 2>&1 || cat {log} >&2"
