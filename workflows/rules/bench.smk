# Kernels against each other, one case and device a job; a job takes every core, so that nothing
# disturbs it.
def bench_kernels(wildcards):
    chosen = GPU_KERNELS if wildcards.place else CPU_KERNELS
    return " ".join(f"--kernel {kernel}" for kernel in chosen)


rule bench_case:
    output:
        samples=f"{OUT}/bench/{MACHINE}/{{case}}{{place}}.json",
    log:
        f"{OUT}/logs/bench-{{case}}{{place}}.log",
    threads: workflow.cores
    resources:
        gpu=1,
        mem_mb=4000,
    params:
        code=code_digest("harness.bench.commands", "harness.bench.suite", "harness.bench.plugin"),
        kernels=bench_kernels,
        device=lambda wildcards: PLACES[wildcards.place],
        seconds=PRESET["bench"]["seconds"],
        folder=subpath(output.samples, ancestor=2),
    shell:
        "bnn bench --case {wildcards.case} {params.kernels} --device {params.device}"
        " --seconds {params.seconds} --threads {threads} --out {params.folder} > {log} 2>&1"
