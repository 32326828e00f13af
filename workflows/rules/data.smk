# Stand-ins generated, or the publishers' files; either is verified by content.
if STANDIN:

    rule standin:
        output:
            folder=directory(f"{config['data']}/{{dataset}}"),
        log:
            f"{RESULTS}/logs/standin-{{dataset}}.log",
        threads: 1
        resources:
            mem_mb=1000,
        params:
            code=code_digest("harness.data.standin"),
        shell:
            "bnn data standin --dataset {wildcards.dataset} --out {config[data]} > {log} 2>&1"


def dataset_folder(wildcards):
    return f"{config['data']}/{wildcards.dataset}" if STANDIN else []


rule data:
    input:
        folder=dataset_folder,
    output:
        manifest=f"{OUT}/data/{{dataset}}.json",
    log:
        f"{OUT}/logs/data-{{dataset}}.log",
    threads: 1
    resources:
        mem_mb=4000,
    params:
        code=code_digest("harness.data.dataset"),
    shell:
        "bnn data verify --dataset {wildcards.dataset} --data {config[data]:q}"
        " --out {output.manifest} > {log} 2>&1"
