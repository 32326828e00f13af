# Claims, tables, figures and the page, from the frames alone.
rule render:
    input:
        FRAMES,
    output:
        claims=f"{OUT}/claims.csv",
        tables=directory(f"{OUT}/tables"),
        figures=directory(f"{OUT}/figures"),
        page=f"{OUT}/report.html",
    log:
        f"{OUT}/logs/report.log",
    params:
        code=code_digest("harness.report.commands"),
    shell:
        "bnn report --frames {OUT} --out {OUT} > {log} 2>&1"


rule tables:
    input:
        rules.render.output.tables,


rule figures:
    input:
        rules.render.output.figures,


rule report:
    input:
        rules.render.output,
