# Everything happens in one virtual environment, from the versions pinned in constraints.txt.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TRITON := .triton
PIP := $(BIN)/python -m pip --disable-pip-version-check install -q -c constraints.txt

# MLServer, which the server is compared with, wants other versions of what prefrm has.
MLSERVER := .venv-mlserver

# The lowest versions that pyproject.toml allows, but for torch: of older releases PyPI has no build without
# gigabytes of CUDA. Where one is at hand: make test-lowest LOWEST_TORCH=2.9.0
LOWEST := .venv-lowest
LOWEST_TORCH ?= $(patsubst torch==%,%,$(shell grep '^torch==' constraints.txt))
LOWEST_PIP := $(LOWEST)/bin/python -m pip --disable-pip-version-check install -q
LOWEST_TOOLS := pytest pytest-timeout hypothesis httpx
# A judge trained, merged, loaded, scored, evaluated, served on both wires and used as a reward.
LOWEST_TESTS := tests/test_floors.py tests/prefrm/test_bundle_merging.py tests/prefrm/test_bundle_quantized.py \
  tests/prefrm/train/test_run.py tests/prefrm/eval/test_report.py tests/prefrm/eval/test_statistics.py \
  tests/prefrm/test_cli_judges.py tests/prefrm/records tests/prefrm/grpo/test_trl.py \
  tests/serving/test_grpc_wire.py tests/serving/test_http_wire.py tests/serving/test_docs_page.py

# One worker for each core, each with one thread; a worker that is done takes tests from another.
PYTEST := $(BIN)/python -m pytest
WORKERS := -n logical --maxprocesses 8 --dist worksteal

.PHONY: help quickstart flow-demo check test test-browser test-lowest test-hostile test-triton bench-judges bench-hacking bench-engine bench-server bench-gpu format clean

help:
	@echo "make quickstart   install, then train, serve and use a judge on this machine"
	@echo "make flow-demo    train a judge, serve it, and train a flow policy with its win rates (minutes)"
	@echo "make test         every test that needs no GPU, no network and no Triton (a quarter of an hour on two cores)"
	@echo "make test-browser drive the pages of prefrm app in Debian's chromium, which must be installed (minutes)"
	@echo "make test-triton  compare the server with NVIDIA's Triton, which this installs (minutes)"
	@echo "make test-lowest  a few tests with the lowest versions that pyproject.toml allows (minutes)"
	@echo "make test-hostile send servers 20,000 malformed requests and attacks, and print what came of them (minutes)"
	@echo "make check        lint, types, import layers"
	@echo "make bench-judges train every kind of judge and write docs/judges.md (three quarters of an hour)"
	@echo "make bench-hacking train a flow policy with several rewards and write docs/hacking.md (half an hour)"
	@echo "make bench-engine time every way to score a group and write docs/engine.json (twenty minutes)"
	@echo "make bench-server time the server, beside MLServer, and write docs/server.json (twenty minutes)"
	@echo "make bench-gpu    measure all that a GPU is for, and write docs/gpu.md (25 minutes at most)"
	@echo "make format       let ruff rewrite the sources"
	@echo "make clean        remove the virtual environment and what tools left behind"

quickstart: $(VENV)/.installed
	$(BIN)/prefrm quickstart

# The story in commands, with a thread for the server and one for the trainer, which slow each other by far with
# more than there are cores; what it leaves is in runs/flow-demo, with the report of the policy in nft/report.md.
DEMO := runs/flow-demo
flow-demo: $(VENV)/.installed
	$(BIN)/prefrm data build shapes --out $(DEMO)/data
	$(BIN)/prefrm train configs/train/shapes.yaml --set data.path=$(DEMO)/data --set output=$(DEMO)/judge
	export OMP_NUM_THREADS=1; $(BIN)/prefrm serve $(DEMO)/judge/bundle --http-port 0 --metrics-port 0 & server=$$!; trap "kill $$server" EXIT; \
	$(BIN)/prefrm flow configs/flow/shapes_nft.yaml --set judge=grpc://127.0.0.1:8001/judge --set output=$(DEMO)/nft --set optim.iterations=40

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: $(VENV)/.installed-dev
	$(PYTEST) $(WORKERS)

test-triton: $(VENV)/.installed-triton
	$(PYTEST) -m triton

test-browser: $(VENV)/.installed-dev
	$(PYTEST) -m browser

test-lowest: $(LOWEST)/.installed
	$(LOWEST)/bin/python -m pytest $(LOWEST_TESTS)

test-hostile: $(VENV)/.installed-dev
	PREFRM_HOSTILE_REQUESTS=20000 $(PYTEST) -s --timeout 3600 tests/serving/test_malformed.py
	$(BIN)/python -m tests.serving.attacks

bench-judges: $(VENV)/.installed
	$(BIN)/prefrm bench judges

bench-hacking: $(VENV)/.installed
	$(BIN)/prefrm bench hacking --workers 2

bench-engine: $(VENV)/.installed
	$(BIN)/prefrm bench engine --out docs

bench-server: $(VENV)/.installed $(MLSERVER)/.installed
	$(BIN)/prefrm bench server --mlserver $(MLSERVER)/bin/python --out docs
	$(BIN)/prefrm bench soak --out docs

# What is measured stays in runs/bench-gpu, and an interrupted benchmark goes on there. Where prefrm's packages
# are installed otherwise: python -m prefrm.bench.gpu --out docs
bench-gpu: $(VENV)/.installed-dev
	$(BIN)/python -m prefrm.bench.gpu --out docs

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(LOWEST) $(MLSERVER) $(TRITON) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# torch goes first and alone, so that no other requirement can ask for another build of it.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) $$(grep '^torch==' constraints.txt)
	$(PIP) -e '.[all]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) -e '.[dev]'
	touch $@

$(LOWEST)/.installed: pyproject.toml constraints.txt tests/floors.py
	test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	$(LOWEST_PIP) torch==$(LOWEST_TORCH)
	$(PYTHON) tests/floors.py torch==$(LOWEST_TORCH) > $(LOWEST)/constraints.txt
	for tool in $(LOWEST_TOOLS); do grep "^$$tool==" constraints.txt; done >> $(LOWEST)/constraints.txt
	$(LOWEST_PIP) -c $(LOWEST)/constraints.txt -e '.[all,otel]' $(LOWEST_TOOLS)
	touch $@

$(MLSERVER)/.installed:
	test -x $(MLSERVER)/bin/python || $(PYTHON) -m venv $(MLSERVER)
	$(MLSERVER)/bin/python -m pip --disable-pip-version-check install -q mlserver==1.7.1
	touch $@

# NVIDIA's own server, which the tests hold prefrm's against.
$(VENV)/.installed-triton: $(VENV)/.installed-dev tests/serving/triton/install.py
	$(BIN)/python tests/serving/triton/install.py $(TRITON)
	touch $@
