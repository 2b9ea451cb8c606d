# `make` alone lists what there is. On a fresh machine only Python 3.11 or newer with venv is needed.

PYTHON ?= python3
# TORCH_INDEX=cpu installs PyTorch without CUDA: about 1 GB in all instead of 5.5 GB.
TORCH_INDEX ?=
WORKERS ?= 2

BIN := .venv/bin
READY := .venv/.ready
LOWEST := .venv-lowest/bin
LOWEST_READY := .venv-lowest/.ready
NOTEBOOKS := $(wildcard notebooks/*.ipynb notebooks/*/*.ipynb)

.DEFAULT_GOAL := help
.PHONY: help install figures test test-imitated test-lowest lab app lint clean distclean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  TORCH_INDEX=cpu before the first target installs PyTorch without CUDA."

install: $(READY) ## set up .venv with everything (the other targets do this by themselves)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing into .venv (minutes; $(if $(filter cpu,$(TORCH_INDEX)),about 1 GB,about 5.5 GB with CUDA)) ..."
	@$(if $(TORCH_INDEX),$(BIN)/pip install -q torch torchvision --index-url https://download.pytorch.org/whl/$(TORCH_INDEX))
	@$(BIN)/pip install -q -e ".[dev]"
	@touch $@

figures: $(READY) ## draw every classroom figure into figures/
	@$(BIN)/partcrop-lab figures

test: $(READY) ## run all tests
	@$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadscope --no-loadscope-reorder

test-imitated: $(READY) ## run the tests whose numbers could follow the chip as two other chips would
	@ATEN_CPU_CAPABILITY=avx2 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) -m numeric
	@PARTCROP_LAB_PRECISION=bf16 $(BIN)/python -m pytest -q -n $(WORKERS) -m numeric

test-lowest: $(LOWEST_READY) ## run all tests on the lowest versions that pyproject.toml allows
	@$(LOWEST)/python -m pytest -q -n $(WORKERS) --dist loadscope --no-loadscope-reorder

$(LOWEST_READY): pyproject.toml
	@$(PYTHON) -m venv .venv-lowest
	@echo "Installing the lowest versions into .venv-lowest (minutes) ..."
	@$(LOWEST)/pip install -q uv
	@$(LOWEST)/uv pip install -q --python $(LOWEST)/python --resolution lowest-direct \
		$(if $(TORCH_INDEX),--torch-backend $(TORCH_INDEX)) -e ".[dev]"
	@touch $@

lab: $(READY) ## open the notebooks in JupyterLab
	@$(BIN)/jupyter lab notebooks/00_start_here.ipynb

app: $(READY) ## show the panels alone, as dashboards in the browser
	@$(BIN)/voila notebooks/dashboards

lint: $(READY) ## check style, formatting, and that notebooks hold no outputs
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(if $(NOTEBOOKS),$(BIN)/nbstripout --verify $(NOTEBOOKS))

clean: ## remove what tools left behind; keeps .venv, figures and the cache
	@rm -rf build dist .pytest_cache .ruff_cache .hypothesis
	@find . -name .venv\* -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

distclean: clean ## also remove .venv and .venv-lowest
	@rm -rf .venv .venv-lowest *.egg-info
