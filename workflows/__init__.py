"""The workflow's own Python: presets, paths and code digests. Only this folder knows Snakemake."""
