# Works on a machine that has only Python >= 3.10. A second call installs nothing.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: demo test lint docs clean

$(VENV)/.installed: setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: $(VENV)/.installed
	@echo '--- train on phantoms: synthetic slices of 96 people' >&2
	$(BIN)/python -m train
	@echo '--- export, and compare every decision with the trained model' >&2
	$(BIN)/python -m export --to onnx
	@echo '--- predict slices of people who were not trained on' >&2
	test -d phantoms || $(BIN)/python -m train.data.phantom --out phantoms
	$(BIN)/python -m runtime --bundle bundle scan.jpg phantoms/*/p00[0-3]_s12.png
	@echo
	@echo 'Next, with your own slices (a folder of class folders, or .parquet):'
	@echo '  . $(BIN)/activate'
	@echo '  python -m train --data DIR_OR_PARQUET --weights imagenet'
	@echo '  python -m export --to onnx'
	@echo '  python -m runtime --bundle bundle scan.jpg'
	@echo '  python -m benchmarks'

# A worker that dies ends the tests: with another in its place pytest-xdist would wait for ever.
test: $(VENV)/.installed
	$(BIN)/python -m pytest --numprocesses 2 --max-worker-restart 0 --dist loadfile --no-loadscope-reorder

# The last line looks up known flaws of what is installed, where pip-audit and its database can be reached.
lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@$(BIN)/python -P requirements/audit.py

# The package as a wheel has it, for tools that read source files: stageproof/{runtime,train,export,benchmarks}.
build/tree: $(wildcard stageproof/*.py)
	mkdir -p $@/stageproof
	ln -sfn $(addprefix ../../../,$^ runtime train export benchmarks) $@/stageproof/
	touch $@

$(VENV)/.docs: setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	touch $@

# Into build/site, which needs no server: open build/site/index.html.
docs: $(VENV)/.docs build/tree
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
