# `make demo` shows what tikhon does; `make test` runs everything that CI runs. Both set up a private `.venv` first.
PYTHON ?= python3
BIN := .venv/bin
# One thread a process: two threads beside another busy process are slower than one.
export OMP_NUM_THREADS ?= 1

.PHONY: help setup demo test lint types unit parity fuzz works-with vision bench evidence surveys current stubs docs site links browser clean

help:
	@echo "make demo    which of several methods rescues a network from 40% wrong labels (3 minutes)"
	@echo "make test    everything that CI runs"
	@echo "make setup   the private environment .venv, with the command .venv/bin/tikhon"
	@echo "make parity  the numbers of official implementations (TIKHON_GOLDEN=FOLDER for further cases)"
	@echo "make fuzz    10,000 random recipes, and twice as many calls of functions: each computes or is refused"
	@echo "make works-with  how every method fares in every environment, and its table in docs (ONLY=name for one)"
	@echo "make vision  models of torchvision and timm, in an environment of their own (5 GB; VISION= for other releases)"
	@echo "make bench   time and memory beside other libraries, and of every method's step; needs a quiet machine (ONLY=name)"
	@echo "make evidence  run the studies that are due, and draw the tables of README and docs"
	@echo "make surveys   all methods against each problem, on the same tasks: hours, resumed where it stopped"
	@echo "make docs    the documentation as pages in site/, a page for each method; make site serves it while you write"
	@echo "make links   whether the documentation's links to other sites still lead somewhere"
	@echo "make stubs   src/tikhon/__init__.pyi, for type checkers: after adding a method"
	@echo "make lint | types | unit   the parts of make test"

setup: .venv/.ready

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup
	$(BIN)/tikhon compare --data digits --label-noise 0.4 --methods none,early_stopping,elr,ps_kd,mixup,elr+mixup --seeds 5 --out demo

test: lint types unit current

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

unit: setup browser
	$(BIN)/python -m pytest -n 2

parity: setup
	$(BIN)/python -m pytest -rs tests/parity

fuzz: setup
	TIKHON_FUZZ=10000 $(BIN)/python -m pytest -s tests/fuzz

# What works where, of all methods or of one: `make works-with ONLY=elr`.
works-with: setup
	-$(BIN)/python -m pytest -n 2 -m environment $(if $(ONLY),-k "$(ONLY)") --works-with=docs/works_with.json
	$(BIN)/python tools/works_with.py

# torchvision needs the torch that it was built with, and beside another one much else fails to import: hence not in .venv.
VISION ?= --requirement benchmarks/vision.txt

vision: .venv-vision/.ready
	.venv-vision/bin/python -m pytest -rs tests/vision

.venv-vision/.ready: pyproject.toml benchmarks/vision.txt
	$(PYTHON) -m venv .venv-vision
	.venv-vision/bin/python -m pip install --quiet $(VISION) pytest --editable .
	@touch $@

# Both environments first: nothing else may run beside a measurement.
bench: .venv-bench/.ready .venv-vision/.ready
	.venv-bench/bin/python benchmarks/run.py peers --only "$(ONLY)"
	.venv-vision/bin/python benchmarks/run.py vision --only "$(ONLY)"
	.venv-bench/bin/python benchmarks/steps.py --only "$(ONLY)"
	.venv-bench/bin/python benchmarks/scaling.py --only "$(ONLY)"
	.venv-bench/bin/python tools/benchmark_table.py

.venv-bench/.ready: pyproject.toml benchmarks/peers.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --requirement benchmarks/peers.txt --editable .
	@touch $@

evidence: setup
	$(BIN)/tikhon prove --all
	$(BIN)/python tools/evidence_table.py

surveys: setup
	$(BIN)/tikhon survey
	$(BIN)/python tools/evidence_table.py

# Stored results are never those of another source.
current: setup
	$(BIN)/tikhon prove --all --check
	$(BIN)/tikhon survey --check

# The theme announces its successor on every build.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "site/index.html"

site: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

# Needs the network, so it is no part of the tests.
links: docs
	$(BIN)/python tools/links.py

stubs: setup
	$(BIN)/python tools/stubs.py

# The report is tested in a real browser. Where Debian's packages can be installed it is installed; elsewhere any chromium on the path serves.
browser:
	@command -v chromium >/dev/null || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -qq && apt-get install -qq -y chromium >/dev/null; } || echo "no chromium: the tests of the report's page will be skipped"

clean:
	rm -rf .venv .venv-bench .venv-vision build dist site .mypy_cache .ruff_cache .pytest_cache demo
