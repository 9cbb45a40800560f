# `make demo` and `make test` set everything up in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(VENV)/.run-$(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)
DEV := $(RUN)-dev
DOCS := $(RUN)-docs
BENCH := $(RUN)-bench

.PHONY: demo test test-portability test-newest test-oldest constraints wheel lint docs evidence bench clean

demo: $(RUN)
	$(BIN)/smoothcert demo -o demo

test: $(DEV)
	$(BIN)/python -m pytest -n 2 --dist worksteal

# Runs the tests that compute, under the settings that make this processor compute as others do; the file lists them.
test-portability: $(DEV)
	$(BIN)/python tests/portability.py

# These run all tests with the newest, and with the oldest, releases that pyproject.toml allows, each in an environment of
# its own. Both keep the torch of constraints.txt, because others bring gigabytes of CUDA. To run only some of the tests:
# make test-oldest TESTS=tests/cli/test_cli.py
test-newest:
	$(PYTHON) -m venv .venv-newest
	grep '^torch==' constraints.txt > .venv-newest/torch.txt
	.venv-newest/bin/pip install --quiet --upgrade -c .venv-newest/torch.txt -e '.[dev,docs,bench]'
	.venv-newest/bin/python -m pytest -n 2 --dist worksteal $(TESTS)

test-oldest:
	$(PYTHON) -m venv .venv-oldest
	grep '^torch==' constraints.txt > .venv-oldest/torch.txt
	.venv-oldest/bin/pip install --quiet uv -r .venv-oldest/torch.txt
	VIRTUAL_ENV=.venv-oldest .venv-oldest/bin/uv pip install --quiet --resolution lowest-direct -c .venv-oldest/torch.txt -e '.[dev]'
	.venv-oldest/bin/python -m pytest -n 2 --dist worksteal $(TESTS)

# Writes constraints.txt from what `make test-newest` installed.
constraints:
	grep '^#' constraints.txt > .venv-newest/constraints.txt
	.venv-newest/bin/pip freeze --all --exclude pip --exclude-editable | sed "s/+cpu//; s/^atheris.*/&; sys_platform == 'linux'/" >> .venv-newest/constraints.txt
	mv .venv-newest/constraints.txt constraints.txt

# Builds the wheel and installs it, with the template of a package of parts, into an environment outside the checkout.
WHEEL := $(or $(TMPDIR),/tmp)/smoothcert-wheel
wheel: $(RUN)
	rm -rf $(WHEEL)
	$(PYTHON) -m venv $(WHEEL)
	$(BIN)/pip wheel --quiet --no-deps -w $(WHEEL)/dist .
	$(WHEEL)/bin/pip install --quiet -c constraints.txt $(WHEEL)/dist/*.whl ./examples/plugin
	cd $(WHEEL) && bin/pip check && bin/smoothcert info --parts | grep -q smoothcert-extras
	cd $(WHEEL) && bin/smoothcert train --data digits --model tiny --objective focal --sigma 0.25 --epochs 1 -o model
	cd $(WHEEL) && bin/smoothcert certify model --max-images 3 --n 100 -o store && bin/smoothcert verify store
	rm -rf $(WHEEL)

lint: $(DEV)
	$(BIN)/ruff check .
	if [ -x $(BIN)/hadolint ]; then $(BIN)/hadolint Dockerfile; fi
	$(BIN)/pyright
	$(BIN)/lint-imports

# Builds the documentation as a site into build/docs; a warning is an error.
docs: $(DOCS)
	$(BIN)/sphinx-build -W --keep-going -q docs build/docs

# Measures at full cost what is claimed, into docs/results/. To run only a part: make evidence PART=coverage
evidence: $(DEV)
	$(BIN)/python evidence/run.py $(PART)

# Measures speed and memory, into benchmarks/RESULTS.md. To run only some parts: make bench PART="speed memory"
bench: $(BENCH)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/run.py $(PART)

clean:
	rm -rf $(VENV) .venv-newest .venv-oldest demo build dist evidence-work

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
