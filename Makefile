# `make demo` and `make test` make the environment themselves; both need nothing but Python 3.11 to 3.13.

PYTHON ?= python3
BIN := .venv/bin
INSTALL := PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check
DEMO_FOLDER ?= demo

.PHONY: help demo test check docs package format constraints clean

help:
	@echo "make demo    train, convert, verify and export a RepVGG on handwritten digits (minutes; no download of data)"
	@echo "make test    run the tests on TensorFlow, JAX and PyTorch"
	@echo "make check   ruff, mypy, import-linter"
	@echo "make docs    build the documentation's site in build/site; warnings are errors"
	@echo "make package build wheel and sdist in dist/, and check what is in them"
	@echo "make format  let ruff format the code"

demo: .venv/demo.installed
	$(BIN)/repvgg demo --output $(DEMO_FOLDER) --force

test: .venv/test.installed
	scripts/test

check: .venv/check.installed
	scripts/check

docs: .venv/docs.installed
	$(BIN)/python -m website

package: .venv/package.installed
	scripts/package

format: .venv/check.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Each stamp is remade when the declared or the pinned versions change.
.venv/%.installed: pyproject.toml constraints.txt | .venv/created
	$(INSTALL) --editable '.[$*]'
	@touch $@

.venv/created:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else "repvgg needs Python 3.11 to 3.13, and $(PYTHON) is %d.%d. Name another one: make PYTHON=python3.12 ..." % v)'
	$(PYTHON) -m venv .venv
	@touch $@

# The versions of an environment with everything in it, without local build tags.
constraints: .venv/test.installed .venv/check.installed .venv/docs.installed .venv/package.installed
	@{ head -1 constraints.txt; $(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//'; } > .venv/constraints.txt
	mv .venv/constraints.txt constraints.txt

clean:
	rm -rf .venv
