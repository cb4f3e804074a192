# Works on a machine that has only Python >= 3.10. A second call installs nothing.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: demo test lint docs clean tree

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

# The tree of a wheel, for tools that read files and do not import: stageproof/ with the packages inside.
tree:
	rm -rf build/tree
	mkdir -p build/tree
	cp -R stageproof build/tree/
	cp -R runtime train export serving benchmarks build/tree/stageproof/

# The last line looks up known flaws of what is installed, where pip-audit and its database can be reached.
lint: $(VENV)/.installed tree
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd build/tree && ../../$(BIN)/lint-imports ../../setup.cfg
	@$(BIN)/python -P requirements/audit.py

$(VENV)/.docs: setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	touch $@

# Into build/site: open build/site/index.html. Its search needs a server: python -m http.server -d build/site.
docs: $(VENV)/.docs tree
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
