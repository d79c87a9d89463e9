# `make demo` and `make test` are all that a newcomer needs; `make` alone lists the rest.

PYTHON ?= python3
BIN := .venv/bin
DEMO := outputs/demo
PAIRS := $(DEMO)/pairs
KEPT := $(DEMO)/pairs.kept
DATA := $(DEMO)/data
TRAINED := outputs/demo_train

.PHONY: help demo demo-steps demo-train test test-all coverage docs lint format clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1	\2/p' $(MAKEFILE_LIST)

demo: .venv/.installed ## the main job: what a reference brings, on 9 photographs: outputs/demo/panel.png
	@start=$$(date +%s); $(MAKE) --no-print-directory demo-steps && echo "demo: $$(($$(date +%s) - start)) s without the installation"

demo-steps:
	$(BIN)/python data/demo/prepare.py --output $(PAIRS)
	$(BIN)/python index.py database=$(PAIRS)/database index=$(DEMO)/pairs.index encoder=color_gradient kept=$(KEPT)
	$(BIN)/python infer.py input=$(PAIRS)/lr output=$(DEMO)/without
	$(BIN)/python infer.py input=$(PAIRS)/lr output=$(DEMO)/wrong reference=$(PAIRS)/wrong kept=$(KEPT)
	$(BIN)/python infer.py input=$(PAIRS)/lr output=$(DEMO)/retrieved index=$(DEMO)/pairs.index kept=$(KEPT)
	$(BIN)/python infer.py input=$(PAIRS)/lr output=$(DEMO)/right reference=$(PAIRS)/right kept=$(KEPT) provenance=true
	$(BIN)/python evaluate.py compare lq=$(PAIRS)/lr gt=$(PAIRS)/test output=$(DEMO)/metrics metrics=[psnr,ssim] \
		baselines=[bicubic] $(foreach run,without wrong retrieved right,+folders.$(run)=$(DEMO)/$(run))
	$(BIN)/python data/demo/compare.py --folder $(DEMO) --data $(PAIRS)

demo-train: .venv/.installed ## a small backbone and a branch trained from nothing: outputs/demo_train/panel.png
	$(BIN)/python data/demo/prepare_train.py --output $(DATA)
	$(BIN)/python index.py database=$(DATA)/database index=$(TRAINED)/index encoder=color_gradient \
		assign=$(DATA)/manifest.csv references=5
	$(BIN)/python train.py experiment=demo_backbone
	$(BIN)/python train.py experiment=demo
	$(BIN)/python -m rasr.tools make_tiny output=$(TRAINED)/tiny
	$(BIN)/python infer.py input=$(DATA)/lr output=$(TRAINED)/untrained weights=$(TRAINED)/tiny
	$(BIN)/python infer.py input=$(DATA)/lr output=$(TRAINED)/without weights=$(TRAINED)/backbone/weights
	$(BIN)/python infer.py input=$(DATA)/lr output=$(TRAINED)/with weights=$(TRAINED)/rasr/weights.safetensors \
		index=$(TRAINED)/index
	$(BIN)/python evaluate.py compare lq=$(DATA)/lr gt=$(DATA)/test output=$(TRAINED)/metrics metrics=[psnr,ssim] \
		baselines=[bicubic] $(foreach run,untrained without with,+folders.$(run)=$(TRAINED)/$(run))
	$(BIN)/python data/demo/compare_train.py --folder $(TRAINED) --data $(DATA)

test: .venv/.installed-test ## the fast tests: CPU, no network
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

test-all: .venv/.installed-test ## every test, the slow ones and those that need a GPU or the network too
	$(BIN)/python -m pytest -m ''

coverage: .venv/.installed-test ## line coverage of rasr/ by the fast tests
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --cov=rasr --cov-report=term:skip-covered

docs: .venv/.installed ## write docs/code_map.md and docs/configuration.md anew
	$(BIN)/python docs/make_code_map.py
	$(BIN)/python docs/make_configuration.py

lint: .venv/.installed-test ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/.installed-test ## mend style and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove the environment and the caches; outputs/ stays
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps are older than pyproject.toml only when the dependencies may have changed.
.venv/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -e .
	@touch $@

.venv/.installed-test: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -e '.[test]'
	@touch .venv/.installed $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 10) <= v <= (3, 12) else \
	"error: $(PYTHON) is Python %d.%d; RASR needs 3.10 to 3.12: make $(MAKECMDGOALS) PYTHON=python3.11" % v)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
