# `make demo` and `make test` set everything up by themselves, in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(VENV)/.run-$(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)
DEV := $(RUN)-dev
DOCS := $(RUN)-docs
BENCH := $(RUN)-bench

.PHONY: demo test lint docs evidence bench clean

demo: $(RUN)
	$(BIN)/smoothcert demo -o demo

test: $(DEV)
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

# The documentation as a site, into build/docs; a warning is an error.
docs: $(DOCS)
	$(BIN)/sphinx-build -W --keep-going -q docs build/docs

# What is claimed, at full cost, into docs/results/; a part alone: make evidence PART=coverage
evidence: $(DEV)
	$(BIN)/python evidence/run.py $(PART)

# Speed and memory, into benchmarks/RESULTS.md; parts alone: make bench PART="speed memory"
bench: $(BENCH)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/run.py $(PART)

clean:
	rm -rf $(VENV) demo build dist evidence-work

$(RUN):
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -e .
	touch $@

$(DEV): $(RUN)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

$(DOCS): $(RUN)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[docs]'
	touch $@

$(BENCH): $(DEV)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[bench]'
	touch $@
