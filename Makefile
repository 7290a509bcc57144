# Every command of the project. `make` alone lists them; whatever needs the installation makes it first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEV_INSTALLED := $(VENV)/.installed-dev
PIP := $(BIN)/python -m pip --disable-pip-version-check install -qq --no-compile --constraint constraints.txt

# What a user passes goes to the program word for word: taken unexpanded ($(value)), handed over in the
# environment, and quoted in the recipe. "$${X:+"--x=$$X"}" is one argument where X is set, none where it is not.
USER_VARIABLES := EXP EXPS RUN RUNS FROM SET DATA_DIR NETWORK EPOCHS SCHEDULE FORCE KILLS SEED SEEDS WORKERS AGAINST ROUNDS IMAGES FORMAT SPLIT CHECKPOINT VIEWS ARGS
$(foreach name,$(USER_VARIABLES),$(eval override $(name) := $$(value $(name))))
export $(USER_VARIABLES)

.DEFAULT_GOAL := help
.PHONY: help install train preview resume doctor prove-resume bench evaluate predict explain export curves report \
	compare check list models results schema notebooks test test-all lint clean

help: ## show this list
	@echo "make TARGET [EXP=name] [SET=\"training.epochs=2 seed=1\"] ..."
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' Makefile

install: $(INSTALLED) ## make .venv with everything that training needs
	@echo "$(VENV) is ready"

train: $(INSTALLED) ## train EXP (default: quickstart); SET="key=value ...", DATA_DIR=folder, FROM=run to repeat a run, SEEDS=3 for three runs, WORKERS=2 to try several processes
	@if [ -z "$$EXP$$FROM" ]; then EXP=quickstart; fi; \
	exec $(BIN)/python -m app train $${EXP:+"$$EXP"} $${FROM:+"--from=$$FROM"} \
		$${SET:+"--set=$$SET"} $${DATA_DIR:+"--data-dir=$$DATA_DIR"} $${SEEDS:+"--seeds=$$SEEDS"} $${WORKERS:+"--workers=$$WORKERS"}

preview: $(INSTALLED) ## draw 24 augmentations of an image of EXP, and its learning rate, before any training
	@exec $(BIN)/python -m app preview $${EXP:+"$$EXP"} $${SET:+"--set=$$SET"} $${DATA_DIR:+"--data-dir=$$DATA_DIR"}

resume: $(INSTALLED) ## go on with RUN, or the newest unfinished run of EXP; EPOCHS=n [SCHEDULE=keep|stretch] to train on; FORCE=1
	@exec $(BIN)/python -m app resume $${EXP:+"$$EXP"} $${RUN:+"--run=$$RUN"} $${EPOCHS:+"--epochs=$$EPOCHS"} \
		$${SCHEDULE:+"--schedule=$$SCHEDULE"} $${FORCE:+--force} $${WORKERS:+"--workers=$$WORKERS"}

doctor: $(INSTALLED) ## check EXP before a long run, or find in which layer the loss of RUN blew up
	@exec $(BIN)/python -m app doctor $${EXP:+"$$EXP"} $${RUN:+"--run=$$RUN"} $${SET:+"--set=$$SET"} \
		$${DATA_DIR:+"--data-dir=$$DATA_DIR"}

prove-resume: $(INSTALLED) ## train EXP straight and with KILLS=5 kills, and compare the two runs bit by bit
	@exec $(BIN)/python -m app prove-resume $${EXP:+"$$EXP"} $${KILLS:+"--kills=$$KILLS"} \
		$${SEED:+"--seed=$$SEED"} $${SET:+"--set=$$SET"}

bench: $(INSTALLED) ## measure how fast EXP trains here; AGAINST="keras torch" takes turns with them, WORKERS=2 shows how it scales; ROUNDS=7
	@if [ "$${AGAINST#*torch}" != "$$AGAINST" ]; then $(BIN)/python -c "import torch" 2>/dev/null || $(PIP) --editable ".[torch]"; fi
	@exec $(BIN)/python -m app bench $${EXP:+"$$EXP"} $${AGAINST:+"--against=$$AGAINST"} \
		$${ROUNDS:+"--rounds=$$ROUNDS"} $${SET:+"--set=$$SET"} $${DATA_DIR:+"--data-dir=$$DATA_DIR"} \
		$${WORKERS:+"--workers=$$WORKERS"}

evaluate: $(INSTALLED) ## judge RUN, or the newest run of EXP, class by class; SPLIT=test, VIEWS=flip, CHECKPOINT=last
	@exec $(BIN)/python -m app evaluate $${EXP:+"$$EXP"} $${RUN:+"--run=$$RUN"} $${SPLIT:+"--split=$$SPLIT"} \
		$${VIEWS:+"--views=$$VIEWS"} $${CHECKPOINT:+"--checkpoint=$$CHECKPOINT"}

predict: $(INSTALLED) ## tell the classes of IMAGES (a file, a folder, "*.jpg") with RUN, or the newest run of EXP
	@exec $(BIN)/python -m app predict $${EXP:+"$$EXP"} $${RUN:+"--run=$$RUN"} $${IMAGES:+"--images=$$IMAGES"} \
		$${CHECKPOINT:+"--checkpoint=$$CHECKPOINT"}

explain: $(INSTALLED) ## draw the first filters, and where the network of RUN looks in IMAGES (Grad-CAM)
	@exec $(BIN)/python -m app explain $${EXP:+"$$EXP"} $${RUN:+"--run=$$RUN"} $${IMAGES:+"--images=$$IMAGES"} \
		$${CHECKPOINT:+"--checkpoint=$$CHECKPOINT"}

export: $(INSTALLED) ## write the network of RUN for other programs: FORMAT=keras, saved_model, onnx or tflite
	@if [ "$$FORMAT" = onnx ] || [ "$$FORMAT" = tflite ]; then \
		$(BIN)/python -c "import onnxruntime, tf2onnx, ai_edge_litert" 2>/dev/null || $(PIP) --editable ".[export]"; fi
	@exec $(BIN)/python -m app export $${EXP:+"$$EXP"} $${RUN:+"--run=$$RUN"} $${FORMAT:+"--format=$$FORMAT"} \
		$${CHECKPOINT:+"--checkpoint=$$CHECKPOINT"}

report: $(INSTALLED) ## write report.html of RUN, or of the newest run of EXP, again
	@exec $(BIN)/python -m app report $${EXP:+"$$EXP"} $${RUN:+"--run=$$RUN"}

curves: $(INSTALLED) ## draw the curves of RUN, or of the newest finished run of EXP, again
	@exec $(BIN)/python -m app curves $${EXP:+"$$EXP"} $${RUN:+"--run=$$RUN"}

compare: $(INSTALLED) ## compare RUNS="a/latest b/latest", or the newest runs of EXPS="a b": picture and page
	@exec $(BIN)/python -m app compare $${RUNS:+"--runs=$$RUNS"} $${EXPS:+"--exps=$$EXPS"}

check: $(INSTALLED) ## check EXP, or every experiment, without training
	@exec $(BIN)/python -m app check $${EXP:+"$$EXP"}

list: $(INSTALLED) ## list the experiments
	@exec $(BIN)/python -m app list

models: $(INSTALLED) ## list the networks beside their sources' sizes, or NETWORK layer by layer
	@exec $(BIN)/python -m app models $${NETWORK:+"$$NETWORK"}

results: $(INSTALLED) ## write the README's table of results from the run folders
	@exec $(BIN)/python -m app results

schema: $(INSTALLED) ## write the catalogue of legal names and the editors' schema again
	@exec $(BIN)/python -m app.config.catalogue

notebooks: $(DEV_INSTALLED) ## run every notebook from top to bottom (on copies)
	@exec $(BIN)/python -m pytest -m "" tests/test_notebooks.py

test: $(DEV_INSTALLED) ## run the fast tests, two files at a time; ARGS="tests/config -x" is handed to pytest
	@exec $(BIN)/python -m pytest -n 2 --dist loadfile $$ARGS

test-all: $(DEV_INSTALLED) ## run every test, the slow ones too
	@exec $(BIN)/python -m pytest -m "" $$ARGS

lint: $(DEV_INSTALLED) ## check format, style and types
	@$(BIN)/ruff format --check --quiet . || { echo "$(BIN)/ruff format .   mends the format"; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy

clean: ## delete .venv and caches; never runs/ or data/
	@rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
	@find app models tests -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is written last and removed first, so a half-finished installation never passes for a whole one.
$(INSTALLED): pyproject.toml constraints.txt
	@rm -f $@ $(DEV_INSTALLED)
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { \
		echo "Python 3.11, 3.12 or 3.13 is needed; $(PYTHON) is: $$($(PYTHON) --version 2>&1)."; \
		echo "Name another one: make install PYTHON=python3.12"; exit 1; }
	@echo "installing into $(VENV) (a few minutes the first time)"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@if nvidia-smi >/dev/null 2>&1; then extras="[gpu]"; else extras=""; fi; \
		$(PIP) --editable ".$$extras"
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
	@touch $@

$(DEV_INSTALLED): $(INSTALLED)
	@rm -f $@
	@echo "installing the development tools into $(VENV)"
	@$(PIP) --editable ".[dev]"
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
	@touch $@
