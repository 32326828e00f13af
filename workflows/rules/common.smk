# The config and the preset, checked against their schemas before anything else.
import sys

from snakemake.utils import validate

sys.path.insert(0, workflow.basedir)

from harness.errors import HarnessError
from harness.provenance import machine_name
from workflows.digest import code_digest
from workflows.plan import jobs_of, load_preset, safe_name

config.setdefault("preset", "quick")
config.setdefault("results", "results")
config["preset"] = str(config["preset"])
validate(config, "../schemas/config.schema.yaml")

try:
    PRESET = load_preset(config["preset"])
    validate(PRESET, "../schemas/preset.schema.yaml")
    JOBS = jobs_of(PRESET)
    CASES = [safe_name(case) for case in PRESET["bench"]["cases"]]
    KERNELS = [safe_name(kernel) for kernel in PRESET["kernels"]]
    for job in JOBS.values():
        job.recipe_digest  # a setting that no recipe knows is refused before any job starts
except (ValueError, HarnessError) as error:
    raise WorkflowError(str(error))

STANDIN = PRESET["source"] == "standin"
if not STANDIN and not config.get("data"):
    raise WorkflowError(
        f"preset {PRESET['name']!r} trains on the publishers' data: give their folder, "
        "--config data=FOLDER (make DATA=FOLDER); `bnn data fetch` downloads them"
    )

RESULTS = config["results"]
OUT = f"{RESULTS}/{PRESET['name']}"
RUNS = f"{OUT}/runs"
DATA = f"{RESULTS}/standin" if STANDIN else config["data"]
DEVICE = config.get("device", "auto")
TRACK = config.get("track", f"sqlite:///{RESULTS}/mlflow.db")
DATASETS = sorted({job.dataset for job in JOBS.values()})
BNN_JOBS = [folder for folder, job in JOBS.items() if job.is_bnn]
MACHINE = machine_name()

RUN_FILES = expand(f"{RUNS}/{{folder}}/run.json", folder=JOBS)
BENCH_FILES = expand(f"{OUT}/bench/{MACHINE}/{{case}}.json", case=CASES)
EVALUATIONS = expand(f"{RUNS}/{{folder}}/evaluate-{{kernel}}.json", folder=BNN_JOBS, kernel=KERNELS)


wildcard_constraints:
    dataset="mnist|cifar10|svhn",
    run=r"[a-z0-9-]+",
    seed=r"\d+",
    case=r"[A-Za-z0-9_-]+",
