# Everything a person or CI runs. `make help` lists it.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
AUDITOR := pip-audit@2.10.1
# Two training processes with a thread per core each run slower than one with a single thread.
export OMP_NUM_THREADS ?= 1
unexport PYTHONPATH
# The tests start hundreds of programs; without bytecode each would compile our code anew.
unexport PYTHONDONTWRITEBYTECODE
# One process more than CI has cores: a test that starts others waits for about half of its time. The order is that of the folders, whose
# fixtures are then made once; those of many processes come first, not at the lonely end.
PARALLEL := -n 3 --dist loadfile --no-loadscope-reorder
# Slow tests are dealt out one by one, but for those that share a training: they name a group.
PARALLEL_SLOW := -n 3 --dist loadgroup --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow chaos coverage mutants lint format site pictures bench bench-service bench-loader bench-zoo bench-optimizer bench-gpu gpu-wheels constraints constraints-lowest docker-requirements docker-digests audit release clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("video-hpo needs Python 3.11 or newer, but $(PYTHON) is " + sys.version.split()[0] + "; try: make PYTHON=python3.11 $(MAKECMDGOALS)") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

install: $(STAMP)  ## Make .venv with everything in it (about 5 GB, mostly PyTorch)

demo: $(STAMP)  ## Run a whole study on generated videos and print what it found
	$(BIN)/hpo demo

test: $(STAMP)  ## Run the test suite
	$(BIN)/pytest $(PARALLEL) -m "not slow"

test-slow: $(STAMP)  ## Run the tests that train for minutes: about an hour; CI runs some of them (SLOW=tests/acceptance for a part)
	$(BIN)/pytest $(PARALLEL_SLOW) -m slow $(SLOW)

chaos: $(STAMP)  ## Kill workers, API, optimizer and Postgres for an hour and check what is left (CHAOS_MINUTES=60 CHAOS_SEED=1)
	CHAOS_MINUTES=$${CHAOS_MINUTES:-60} $(BIN)/pytest -s -m slow tests/chaos -k promise

coverage: $(STAMP)  ## Run the test suite and print which share of each package it ran (TESTS=tests/unit for a part)
	$(BIN)/coverage erase
	$(BIN)/pytest $(PARALLEL) -m "not slow" --cov --cov-report=html $(TESTS)
	@rm -f .coverage.*  # of processes that were killed while they wrote; all others are joined already
	@for package in hpo models data workers api; do \
	   printf '%-8s ' $$package; $(BIN)/coverage report --include="$$package/*" | grep TOTAL; done

mutants: $(STAMP)  ## Put small defects into the code and count which the tests notice: hours (MUTANTS="--each 3 hpo/store")
	nice $(BIN)/python -m tests.mutants run $(MUTANTS)
	$(BIN)/python -m tests.mutants report $(MUTANTS)

lint: $(STAMP)  ## Check style, types and the arrows between the packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

site: $(STAMP)  ## Build the documentation as a site in .site/html, and fail where a link leads nowhere
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[site]'
	PYTHONPATH=. $(BIN)/python .ci/site/prepare.py .site/pages
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "open .site/html/index.html"

pictures: $(STAMP)  ## Take the pictures of the documents anew from the demo in .demo; needs chromium
	PYTHONPATH=. $(BIN)/python .ci/site/pictures.py .demo docs/pictures

bench: $(STAMP)  ## Measure what docs/benchmarks.md quotes
	$(BIN)/python benchmarks/run.py

bench-service: $(STAMP)  ## Measure the service at up to 30,000 trials and 64 clients beside Optuna's RDB storage (BENCH="reads clients")
	$(BIN)/python -m benchmarks.service $(BENCH)

bench-loader: $(STAMP)  ## Measure the loader beside decoding on the fly, JPEG frames and plain copying (BENCH="--videos FOLDER")
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks.loader $(BENCH)

bench-zoo: $(STAMP)  ## Measure training steps of models beside torchvision's and pytorchvideo's
	$(BIN)/python benchmarks/zoo_speed.py

bench-gpu: $(STAMP)  ## Measure on a GPU what docs/gpu.md leaves open, in eight minutes (BENCH="--cpu --tiny" tries the program)
	$(BIN)/python -m benchmarks.gpu $(BENCH)

gpu-wheels: $(STAMP)  ## Collect in build/gpu what a machine with a GPU and without a registry needs for bench-gpu: 64 MB at most
	$(BIN)/python -m benchmarks.gpu_wheels

bench-optimizer: $(STAMP)  ## Compare the optimizer with its peers: hours, but it continues where it stopped (BENCH="--methods ours")
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	nice $(BIN)/python -m benchmarks.optimizer run $(BENCH)
	$(BIN)/python -m benchmarks.optimizer report
	$(BIN)/python -m benchmarks.optimizer pack

constraints: $(STAMP)  ## Write constraints.txt anew from what is installed
	@{ echo '# The versions this release is tested with; `make constraints` writes this file anew.'; \
	   $(BIN)/pip freeze --exclude-editable; } > constraints.txt.new && mv constraints.txt.new constraints.txt

constraints-lowest: $(STAMP)  ## Write constraints-lowest.txt anew from the lower bounds of pyproject.toml
	@{ echo '# The lowest versions that pyproject.toml allows; `make constraints-lowest` writes this file anew.'; \
	   $(BIN)/uv pip compile --quiet --resolution lowest-direct --python-version 3.11 --no-annotate --no-header \
	   --extra dev pyproject.toml; } > constraints-lowest.txt.new && mv constraints-lowest.txt.new constraints-lowest.txt

BY_HASH := uv pip compile --quiet --generate-hashes --python-version 3.11 --no-annotate --no-header \
	--python-platform x86_64-manylinux_2_28 --constraint constraints.txt
IMAGE_EXTRAS := otel s3 hub
docker-requirements: $(STAMP)  ## Write what the images install anew: the versions of constraints.txt, by hash
	@{ echo '# What the whole image installs, by hash: the versions of constraints.txt. `make docker-requirements` writes this file anew.'; \
	   echo hatchling | $(BIN)/$(BY_HASH) $(addprefix --extra ,$(IMAGE_EXTRAS)) pyproject.toml -; } > docker/requirements.txt.new \
	   && mv docker/requirements.txt.new docker/requirements.txt
	@{ echo '# What the image of the API installs, by hash: no PyTorch. `make docker-requirements` writes this file anew.'; \
	   $(BIN)/python .ci/api_requirements.py | $(BIN)/$(BY_HASH) -; } > docker/requirements-api.txt.new \
	   && mv docker/requirements-api.txt.new docker/requirements-api.txt

docker-digests:  ## Write docker/.env, which pins the images by the digests that their tags have now; needs a registry, and crane or docker
	@docker/digests.sh

audit: $(STAMP)  ## Ask a database of known vulnerabilities about the pinned versions; needs a network
	@$(BIN)/python .ci/audit.py $(BIN)/uv $(AUDITOR)

release: $(STAMP)  ## Check, build, commit and tag a version that CHANGELOG.md describes (VERSION=0.2.0)
	$(BIN)/python .ci/release.py $(VERSION)

clean:  ## Remove .venv, the demo and all caches
	rm -rf $(VENV) .demo .site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist
