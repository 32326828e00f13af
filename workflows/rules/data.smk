# Stand-ins generated, or the publishers' files, verified by content.
if STANDIN:

    rule standin:
        output:
            directory(f"{DATA}/{{dataset}}"),
        log:
            f"{RESULTS}/logs/standin-{{dataset}}.log",
        params:
            code=code_digest("harness.data.standin"),
        shell:
            "bnn data standin --dataset {wildcards.dataset} --out {DATA} > {log} 2>&1"


def dataset_folder(wildcards):
    return f"{DATA}/{wildcards.dataset}" if STANDIN else []


rule data:
    input:
        dataset_folder,
    output:
        f"{OUT}/data/{{dataset}}.json",
    log:
        f"{OUT}/logs/data-{{dataset}}.log",
    params:
        code=code_digest("harness.data.dataset"),
        root=DATA,
    shell:
        "bnn data verify --dataset {wildcards.dataset} --data {params.root} --out {output}"
        " > {log} 2>&1"
