# Two commands set everything up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-all check style tables bench finetune sweep tiny clean

# The exact versions everything here is tested with are in constraints.txt.
.venv/demo: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[cli]"
	touch $@

# lmms-eval without the packages that need CUDA; torchvision in a folder of its own, for the Qwen processors of the tests.
.venv/dev: .venv/demo requirements-eval.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]" -r requirements-eval.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps lmms-eval
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps --upgrade --target .venv/torchvision torchvision
	touch $@

demo: .venv/demo
	$(BIN)/seeless run

# Of the contracts the short plan (CONTRIBUTING.md says what it leaves out).
test: .venv/dev
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-all: .venv/dev
	$(BIN)/python -m pytest -n 2 --dist worksteal --all

check: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/repo

style: .venv/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Every table and picture in the README and in docs/, and the catalogue of methods behind `seeless list`, is written by
# this, from results/ and the registry.
tables: .venv/dev
	$(BIN)/python docs/make_catalogue.py
	$(BIN)/python docs/make_tables.py

bench: .venv/dev
	$(BIN)/python -m seeless.bench.prefill --output results/prefill.jsonl
	$(BIN)/python -m seeless.bench.selectors --output results/selectors.json
	$(BIN)/python -m seeless.bench.train_step --output results/train_step.json

# Fine-tune the embedded model with and without reduction (twenty minutes).
finetune: .venv/dev
	$(BIN)/python training/finetune_tiny.py --output results/finetune.jsonl --threads 1 --seeds 5

# Every method at four budgets on the shipped tasks (a quarter of an hour); goes on where it was stopped.
sweep: .venv/dev
	$(BIN)/seeless sweep --model tiny --strategies all --keep 0.5,0.25,0.11,0.05 --tasks scenes --seed 0,1,2 \
		--batch-size 32 --output results/sweep.jsonl --resume

# Train the embedded model again from nothing (half an hour on two cores).
tiny: .venv/dev
	$(BIN)/python training/train_tower.py --out build/tower --minutes 13
	$(BIN)/python training/train_tiny.py --tower build/tower --out build/tiny

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
