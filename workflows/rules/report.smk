# Claims, tables, figures and the page, from the frames alone.
PAGE = f"{OUT}/report.html"


rule render:
    input:
        frames=FRAMES,
    output:
        claims=report(f"{OUT}/claims.csv", caption="../report/claims.rst", category="Claims"),
        tables=report(
            directory(f"{OUT}/tables"),
            patterns=["{name}.csv"],
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{name}"},
        ),
        figures=report(
            directory(f"{OUT}/figures"),
            patterns=["{name}.svg"],
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{name}"},
        ),
        page=report(PAGE, caption="../report/page.rst", category="Report"),
    log:
        f"{OUT}/logs/report.log",
    threads: 1
    resources:
        mem_mb=2000,
    params:
        code=code_digest(
            "harness.report.commands",
            data=(
                "harness/paper.yaml",
                "harness/ablations.yaml",
                "harness/recipes/*.yaml",
                "harness/report/templates/*",
            ),
        ),
        folder=subpath(output.page, parent=True),
    shell:
        "bnn report --frames {params.folder} --out {params.folder} > {log} 2>&1"


rule tables:
    input:
        rules.render.output.tables,


rule figures:
    input:
        rules.render.output.figures,


rule report:
    input:
        rules.render.output,
