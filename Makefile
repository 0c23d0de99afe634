# Two commands: `make repro` runs the pipeline, `make test` the tests; both set up what they need.
.DEFAULT_GOAL := help
.PHONY: help repro study serve nodes test test-inputs test-slow test-kills test-flips verify check docs bench readme clean setup browser
.PHONY: postgresql

VENV := .venv
# Which build of torch: cpu, or cuda for Linux on x86-64 (make repro TORCH=cuda).
TORCH := $(shell command -v nvidia-smi >/dev/null 2>&1 && echo cuda || echo cpu)
TORCH_INDEX := https://download.pytorch.org/whl/cpu
# The locks name every package with the sha256 of its files, so pip resolves nothing; `pip check` says whether all fits together.
INSTALL = $(VENV)/bin/python -m pip install --disable-pip-version-check --quiet --progress-bar off --no-compile --no-deps --require-hashes
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# No telemetry.
export DO_NOT_TRACK := 1
export GX_ANALYTICS_ENABLED := false
export HF_HUB_DISABLE_TELEMETRY := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
# Without saved bytecode every stage compiles its libraries again, which takes longer than most stages.
unexport PYTHONDONTWRITEBYTECODE

help:   ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## */make \1|/' | column -t -s '|'

repro: setup   ## run the pipeline on the data that params.yaml names
	python -m flows.repro
	@echo "The report: $(CURDIR)/reports/index.html"

study: setup   ## run a study: make study NAME=ratio
	python -m flows.repro studies/$(NAME)/dvc.yaml

serve: setup   ## run production until Ctrl-C: Prefect server, worker, deployments (make serve PORT=4201)
	@exec python -m flows.serve $(if $(PORT),--port $(PORT))

nodes: $(VENV)/nodes   ## install Ray and Prefect's Kubernetes worker, for trainings on other machines

test: setup browser   ## run the tests, one file per core
	python -m pytest -n auto --dist loadfile --no-loadscope-reorder

test-inputs: setup   ## try every bad input of the tests and count the failures
	python -m benchmarks.bad_inputs

test-slow: setup nodes postgresql   ## run the slow tests: killed workers, PostgreSQL, S3, Ray
	python -m pytest -m slow -n auto --dist loadfile --no-loadscope-reorder

test-kills: setup   ## kill commands at random moments and compare their reruns: KILLS=50 SEED=1
	python -m benchmarks.kills $(if $(KILLS),--kills $(KILLS)) $(if $(SEED),--seed $(SEED))

test-flips: setup   ## flip bytes in files at rest and check that every flip is reported: FLIPS=100 SEED=0
	python -m benchmarks.flips $(if $(FLIPS),--flips $(FLIPS)) $(if $(SEED),--seed $(SEED))

verify: setup   ## verify the sha256 of all files at rest: DVC's cache, outputs, production
	python -m stages.production.verify

check: setup   ## lint, type check, import rules
	ruff check .
	ruff format --check .
	mypy
	python -m pytest -q tests/test_rooms.py

docs: setup $(VENV)/docs   ## build the manual, with warnings as errors: docs/_build/html/index.html
	@rm -rf docs/_build
	python -m sphinx -E -W --keep-going -n -q docs docs/_build/html
	@echo "The manual: $(CURDIR)/docs/_build/html/index.html"

bench: setup nodes   ## run the benchmarks after make repro: two hours, and one more for class_prior
	@failed=; for each in train score score_folder endpoint "overhead --full" growth evaluate reading protocol; do \
	  echo "benchmarks.$$each"; python -m benchmarks.$$each || failed="$$failed $${each%% *}"; done; \
	  [ -z "$$failed" ] || { echo "error: failed:$$failed" >&2; exit 1; }

readme: setup browser   ## write the results of the last run into the documents
	python -m stages.pages.readme

clean:   ## delete the environment, caches and outputs, except data/raw and production
	rm -rf $(VENV) .dvc/cache .dvc/tmp .pytest_cache .mypy_cache .ruff_cache .hypothesis build ballast.egg-info
	rm -rf data/messages.parquet data/validation.json data/data_docs data/search.json data/encoder.json
	rm -rf data/techniques data/sources data/samples data/states
	rm -rf models logits curves durations checkpoints evaluations metrics probes selected dvc_plots studies/*/variants
	rm -rf reports/*.csv reports/*.html reports/metrics.json docs/_build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

setup: $(VENV)/installed

$(VENV)/installed: requirements.lock requirements-torch.lock requirements-cuda.lock
	@for python in $(PYTHON) python3.11 python3.12 python3 python; do \
	  if $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then \
	    echo "environment: $$($$python --version)"; $$python -m venv --clear $(VENV) && exit 0; fi; \
	done; echo "error: Python 3.11 or 3.12 is needed; name one with make PYTHON=..." >&2; exit 1
	@echo "installing requirements-torch.lock"; $(INSTALL) -r requirements-torch.lock 2>/dev/null || \
	  $(INSTALL) --index-url $(TORCH_INDEX) -r requirements-torch.lock
	$(INSTALL) -r requirements.lock
	@[ $(TORCH) != cuda ] || { echo "installing requirements-cuda.lock"; $(INSTALL) --force-reinstall -r requirements-cuda.lock; }
	$(VENV)/bin/python -m pip check
	@touch $@

$(VENV)/nodes: $(VENV)/installed requirements-nodes.lock
	$(INSTALL) -r requirements-nodes.lock
	$(VENV)/bin/python -m pip check
	@touch $@

$(VENV)/docs: $(VENV)/installed requirements-docs.lock
	$(INSTALL) -r requirements-docs.lock
	$(VENV)/bin/python -m pip check
	@touch $@

browser:
	@command -v chromium-headless-shell >/dev/null || \
	  { echo "installing Chromium for the page tests"; apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium-headless-shell >/dev/null; } || \
	  command -v chromium >/dev/null || command -v google-chrome >/dev/null || \
	  apt-get install -y -qq --no-install-recommends chromium >/dev/null || \
	  playwright install --with-deps chromium || playwright install chromium

postgresql:
	@command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || \
	  { echo "installing PostgreSQL for the slow tests"; apt-get update -qq && apt-get install -y -qq --no-install-recommends postgresql >/dev/null; }
