# `make demo` and `make test` are all that a newcomer needs; `make` alone lists the rest.

PYTHON ?= python3
BIN := .venv/bin
DEMO := outputs/demo
DATA := $(DEMO)/data
TRAINED := outputs/demo_train

.PHONY: help demo demo-data demo-steps demo-train test test-all lint format clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1	\2/p' $(MAKEFILE_LIST)

demo: .venv/.installed ## the main job on small real photographs: outputs/demo/panel.png
	@start=$$(date +%s); $(MAKE) --no-print-directory demo-steps && echo "demo: $$(($$(date +%s) - start)) s without the installation"

demo-data:
	$(BIN)/python data/demo/prepare.py --output $(DATA)
	$(BIN)/python index.py database=$(DATA)/database index=$(DEMO)/index encoder=color_gradient \
		assign=$(DATA)/manifest.csv references=5

demo-steps: demo-data
	$(BIN)/python infer.py input=$(DATA)/lr output=$(DEMO)/without
	$(BIN)/python infer.py input=$(DATA)/lr output=$(DEMO)/with index=$(DEMO)/index
	$(BIN)/python data/demo/compare.py bicubic
	for method in bicubic without with; do \
		$(BIN)/python evaluate.py sr=$(DEMO)/$$method gt=$(DATA)/test output=$(DEMO)/metrics_$$method \
			metrics=[psnr,ssim] || exit 1; \
	done
	$(BIN)/python data/demo/compare.py summary

demo-train: .venv/.installed demo-data ## the same with a backbone and a branch trained from nothing: outputs/demo_train/panel.png
	$(BIN)/python train.py experiment=demo_backbone
	$(BIN)/python train.py experiment=demo
	$(BIN)/python scripts/make_tiny.py $(TRAINED)/tiny
	$(BIN)/python infer.py input=$(DATA)/lr output=$(TRAINED)/untrained weights=$(TRAINED)/tiny
	$(BIN)/python infer.py input=$(DATA)/lr output=$(TRAINED)/without weights=$(TRAINED)/backbone/weights
	$(BIN)/python infer.py input=$(DATA)/lr output=$(TRAINED)/with weights=$(TRAINED)/rasr/weights.safetensors \
		index=$(DEMO)/index
	$(BIN)/python data/demo/compare.py bicubic --folder $(TRAINED)
	for method in bicubic untrained without with; do \
		$(BIN)/python evaluate.py sr=$(TRAINED)/$$method gt=$(DATA)/test output=$(TRAINED)/metrics_$$method \
			metrics=[psnr,ssim] || exit 1; \
	done
	$(BIN)/python data/demo/compare.py summary --folder $(TRAINED) --trained

test: .venv/.installed-test ## the fast tests: CPU, no network
	$(BIN)/python -m pytest

test-all: .venv/.installed-test ## every test, the slow ones and those that need a GPU or the network too
	$(BIN)/python -m pytest -m ''

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
