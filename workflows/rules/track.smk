# MLflow mirrors the run folders. It may be missing or down: nothing here stops the workflow. A sync
# that failed leaves its message, and is taken up by the next call.
SYNCED = Path(f"{OUT}/logs/tracked.done")
if workflow.is_main_process and SYNCED.exists() and SYNCED.stat().st_size:
    SYNCED.unlink()


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
        tracking=rules.track_init.output.done,
        runs=RUN_FILES,
        evaluations=EVALUATIONS,
    output:
        done=str(SYNCED),
    log:
        f"{OUT}/logs/tracked.log",
    threads: 1
    resources:
        mem_mb=1000,
    params:
        command="bnn track sync" if TRACKED else "true",
        uri=config["track"],
        folder=OUT,
    shell:
        "{params.command} --uri {params.uri:q} --runs {params.folder} > {log} 2>&1"
        " && : > {output.done}"
        " || {{ cat {log}; echo 'the sync did not end'; }} | tee {output.done} >&2"
