# The config and the preset, checked against their schemas before anything else.
import re
import shlex
import sys
from pathlib import Path

from snakemake.utils import validate

sys.path.insert(0, workflow.basedir)

from harness.errors import HarnessError
from harness.preset import check_settings, jobs_of, load_preset
from harness.provenance import commit, gpu_name, machine_name
from harness.report.frames import COLUMNS as FRAME_NAMES
from workflows.digest import code_digest
from workflows.plan import safe_name, what_is_wrong


def check_against(schema, values, where):
    try:
        validate(values, schema)
    except WorkflowError as error:
        # Snakemake adds the whole schema to what jsonschema found.
        raise WorkflowError(what_is_wrong(where, error.__context__)) from None


check_against("../schemas/config.schema.yaml", config, "--config")

try:
    PRESET = load_preset(config["preset"])
    check_against("../schemas/preset.schema.yaml", PRESET, f"preset {config['preset']}")
    JOBS = jobs_of(PRESET, config["groups"].split(",") if "groups" in config else ())
    CASES = [safe_name(case) for case in PRESET["bench"]["cases"]]
    KERNELS = [safe_name(kernel) for kernel in PRESET["kernels"]]
    CPU_KERNELS = [safe_name(kernel) for kernel in PRESET["bench"]["kernels"]]
    GPU_KERNELS = [safe_name(kernel) for kernel in PRESET["bench"].get("gpu_kernels", [])]
    check_settings(JOBS.values())
except (ValueError, HarnessError) as error:
    raise WorkflowError(str(error))

STANDIN = PRESET["source"] == "standin"
if not STANDIN and "data" not in config:
    raise WorkflowError(
        f"preset {PRESET['name']!r} trains on the publishers' data: name their folder by "
        "--config data=FOLDER (make DATA=FOLDER); `bnn data fetch` downloads them"
    )

RESULTS = config["results"]
OUT = f"{RESULTS}/{PRESET['name']}"
RUN = f"{OUT}/runs/{{dataset}}/{{run}}/seed{{seed}}"
MACHINE, HAS_GPU = machine_name(), gpu_name() is not None
if "gpu" not in workflow.global_resources:
    # One job at a time holds a GPU: a second one would share its memory and its clock.
    workflow.register_resource("gpu", 1)

# Where things are and who watches is kept out of `params`: moving the data trains nothing again.
if STANDIN:
    config["data"] = f"{RESULTS}/standin"
config.setdefault("track", f"sqlite:///{RESULTS}/mlflow.db")
TRACKED = config["track"] != "off"
# The sync at the end has what ended within the first seconds: loading MLflow takes five of them.
config["mirror"] = f"--track {shlex.quote(config['track'])} --track-after 30" if TRACKED else ""
config["machine"], config["commit"] = MACHINE, commit()[0] or "no checkout"

BNN_JOBS = [folder for folder, job in JOBS.items() if job.is_bnn]
BNN_RUNS = "|".join(sorted({re.escape(folder.split("/")[1]) for folder in BNN_JOBS})) or "(?!)"
RUN_FILES = expand(f"{OUT}/runs/{{folder}}/run.json", folder=JOBS)
EVALUATIONS = expand(
    f"{OUT}/runs/{{folder}}/evaluate-{{kernel}}.json", folder=BNN_JOBS, kernel=KERNELS
)
INSPECTIONS = expand(f"{OUT}/runs/{{folder}}/inspect.json", folder=JOBS)
# On a GPU its kernels are benched beside the CPU's.
PLACES = {"": "cpu", "-cuda": "cuda"} if HAS_GPU and GPU_KERNELS else {"": "cpu"}
BENCH_FILES = expand(f"{OUT}/bench/{MACHINE}/{{case}}{{place}}.json", case=CASES, place=PLACES)


wildcard_constraints:
    dataset="mnist|cifar10|svhn",
    run=r"[a-z0-9+-]+",
    seed=r"\d+",
    case="|".join(map(re.escape, CASES)) or "(?!)",
    place="(?:-cuda)?",
