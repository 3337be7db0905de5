# One command from a fresh clone: each target first sets up what is missing in .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
TASK ?= detection
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
MMCV := MMCV_WITH_OPS=1 $(PIP) --no-build-isolation
HAS_OPS := $(BIN)/python -c 'import mmcv._ext' 2>/dev/null

CONFIG_detection := configs/detection/hire_mlp_mask_rcnn_shapes.py
CONFIG_segmentation := configs/segmentation/hire_mlp_upernet_shapes.py
CONFIG := $(CONFIG_$(TASK))
RUN := work_dirs/demo_$(TASK)
BENCH := $(BIN)/python benchmarks

.PHONY: help setup demo bench test soak lint

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 8

setup: $(VENV)/.ready ## build the environment in .venv (about 15 minutes once: mmcv's operators are compiled)

demo: setup ## make the embedded data, train, test and draw predictions (TASK=segmentation for the twin)
	@[ -n "$(CONFIG)" ] || { echo "TASK is detection or segmentation, not '$(TASK)'." >&2; exit 2; }
	@[ -f data/shapes/annotations/instances_val.json ] || $(BIN)/python tools/make_shapes.py data/shapes
	@echo '== training $(CONFIG) (about 4 minutes on two cores)'
	$(BIN)/python tools/train.py $(CONFIG) --work-dir $(RUN) --seed 0 $$([ ! -f $(RUN)/last_checkpoint ] || echo --resume)
	@echo '== testing (about 20 seconds)'
	$(BIN)/python tools/test.py $(CONFIG) $$(cat $(RUN)/last_checkpoint) --work-dir $(RUN) --show-dir $(RUN)/predictions
	$(BIN)/python tools/plot_log.py $(RUN) --out $(RUN)/curves.png
	@echo '== drawn predictions beside the ground truth: $(RUN)/predictions; learning curves: $(RUN)/curves.png'

bench: setup ## time backbones and detectors on this CPU (about 16 minutes on two cores; nothing else should run)
	@echo '== inference of the backbones (about 4 minutes on two cores)'
	$(BENCH)/backbones.py --device cpu
	@echo '== the same with one thread at 512x512 (about 2 minutes)'
	$(BENCH)/backbones.py --device cpu --threads 1 --size 512x512
	@echo '== the same in bf16 (about a minute)'
	$(BENCH)/backbones.py --device cpu --dtype bf16 --size 512x512
	@echo '== training step of the backbones, two images of 512x512 (about 5 minutes)'
	$(BENCH)/backbones.py --device cpu --train --size 512x512
	@echo '== inference of Mask R-CNN and UperNet (about 11 minutes)'
	$(BENCH)/detectors.py --device cpu
	@echo '== charts and numbers: work_dirs/benchmarks; their tables go into docs/performance.md'
	$(BENCH)/report.py

test: setup ## run all tests (about 10 minutes on two cores)
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n 2 --dist worksteal  # idle threads of one worker leave the core to the other

soak: setup ## train for long and look for leaks of memory, processes and files (minutes; not part of test)
	ONEDNN_PRIMITIVE_CACHE_CAPACITY=32 LRU_CACHE_CAPACITY=32 $(BIN)/python -m pytest tests/soak/soak.py -s

lint: setup ## check style and formatting with ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The steps of the set-up. A step that failed or was interrupted left no stamp, so the next call takes it up again.
$(VENV)/.created:
	@echo '== set-up 1/4: virtual environment in $(VENV) (seconds)'
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || \
		{ echo 'Python 3.10 or later is needed: make PYTHON=/path/to/python3.11' >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.torch: constraints.txt | $(VENV)/.created
	@echo '== set-up 2/4: PyTorch and build tools (about a minute, longer on a slow network)'
	@$(PIP) torch setuptools wheel ninja
	@touch $@

$(VENV)/.mmcv: $(VENV)/.torch
	@echo '== set-up 3/4: mmcv, compiling its operators (about 10 minutes on two cores; seconds when pip kept the wheel)'
	@$(HAS_OPS) || $(MMCV) mmcv
	@$(HAS_OPS) || { echo '   the wheel that pip kept has no usable operators: compiling once more without the cache'; \
		$(MMCV) --force-reinstall --no-deps --no-cache-dir mmcv; }
	@$(HAS_OPS) || { echo "mmcv is installed without its compiled operators (no module mmcv._ext). Install a C++ compiler" \
		"(g++) and the Python headers, delete $(VENV) and call make again." >&2; exit 1; }
	@touch $@

$(VENV)/.ready: setup.py $(VENV)/.mmcv
	@echo '== set-up 4/4: mmdet, mmsegmentation and this package (about a minute)'
	@$(PIP) --no-build-isolation -e '.[mim,dev]'
	@touch $@
