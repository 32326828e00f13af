# Set-up and the two commands. `make help` lists the targets.
PRESET ?= quick
DATA ?=
CORES ?= all
PYTHON ?= python3
# cpu | auto | cu130 ...: which torch build uv picks; empty takes the index's default.
TORCH_BACKEND ?=
FRAMES ?= results/$(PRESET)
VENV := .venv
# uv does not read pip's settings: a folder of wheels named for pip serves uv too.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: help reproduce test check ui figures lock clean
.DEFAULT_GOAL := help

help:  ## list the targets and variables
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## (.*)/  make \1|\2/' | column -t -s '|'
	@echo '  variables: PRESET=quick|cpu|reduced|reduced-fast|full-width|gpu|ablations|ablations-standin|paper'
	@echo '             CORES=<n|all>'
	@echo '             DATA=<folder with the datasets: all but quick and ablations-standin need it>'
	@echo '             FRAMES=<folder with frames, for make figures>'
	@echo '             TORCH_BACKEND=cpu|auto|cu130  PYTHON=<python 3.11 or newer>'

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed, found $$($(PYTHON) --version); try make PYTHON=python3.12"; exit 1; }
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install -q --disable-pip-version-check uv
	$(VENV)/bin/uv pip install -q --compile-bytecode -c constraints.txt $(if $(TORCH_BACKEND),--torch-backend $(TORCH_BACKEND)) \
	  --python $(VENV)/bin/python -e . --group dev
	touch $@

reproduce: $(VENV)/.installed  ## train, bench and report everything of PRESET
	snakemake --cores $(CORES) --config preset=$(PRESET) $(if $(DATA),'data=$(DATA)')

test: $(VENV)/.installed  ## run the tests
	pytest -n auto --dist worksteal

check: $(VENV)/.installed  ## lint and type-check at pinned versions
	ruff check .
	ruff format --check .
	mypy
	snakefmt --check Snakefile workflows

ui: $(VENV)/.installed  ## open the tracked runs at http://127.0.0.1:5000
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false mlflow ui --host 127.0.0.1 --workers 1 \
	  --backend-store-uri sqlite:///results/mlflow.db

figures: $(VENV)/.installed  ## tables and figures again from the frames in FRAMES, in seconds
	bnn report --frames '$(FRAMES)' --out '$(FRAMES)'

lock:  ## resolve constraints.txt anew for every platform
	env -u UV_FIND_LINKS uv pip compile -q --universal --python-version 3.11 --no-header \
	  --group train --group tracking --group workflow --group gpu --group dev -o constraints.txt

clean:  ## remove the environment and produced results (results/reference stays)
	rm -rf $(VENV) .snakemake
	find results -mindepth 1 -maxdepth 1 ! -name reference -exec rm -rf {} + 2>/dev/null || true
