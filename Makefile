# The same words for ever. All they need: Python 3.11 or newer, make and pip.
PYTHON ?= python3
PY := .venv/bin/python
OFFLINE := HF_HUB_OFFLINE=1 OMP_WAIT_POLICY=PASSIVE

.PHONY: help setup demo test check bench docs
help:
	@sed -n 's/^\([a-z]*\):.*## /make \1\t/p' Makefile | expand -t 14

# The stamp holds what .venv was made from, this folder's own path included: a changed file, a moved clone or a Python that is gone repairs itself.
setup: ## .venv with everything that tests and demo need
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"warmstart needs Python 3.11 or newer, $(PYTHON) is {v[0]}.{v[1]}: make PYTHON=...")'
	@want="$$(cat pyproject.toml constraints.txt | cksum) $(CURDIR)"; \
	if $(PY) -m pip --version >/dev/null 2>&1 && [ "$$(cat .venv/stamp 2>/dev/null)" = "$$want" ]; then exit 0; fi; \
	echo "setting up .venv (the first time takes some minutes)"; \
	$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv || exit 1; \
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,frames,keras,onnx,track]' && echo "$$want" > .venv/stamp

demo: setup ## adapt the shipped sample in a minute, then predict
	.venv/bin/warmstart adapt examples/banking77/train.csv --test examples/banking77/test.csv --budget 60s --out demo-model --force
	.venv/bin/warmstart predict demo-model "My card still has not come" "Why was I charged twice for one coffee?" "Somebody stole my wallet"
	@echo "The report: $(CURDIR)/demo-model/report.html"

check: setup ## linters, types and import rules alone
	$(PY) -m ruff check src tests benchmarks
	$(PY) -m ruff format --check src tests benchmarks
	$(PY) -m mypy
	.venv/bin/lint-imports --no-cache

test: check ## set-up, check and every test, examples in the documentation included
	$(OFFLINE) $(PY) -m pytest -n auto --maxprocesses 4 --dist worksteal

CLAIMS := second_run throughput growth few_labels sst2_trainer bert_trainer
bench: setup ## every claim measured against its peers (hours; goes on where it was stopped)
	@$(PYTHON) -m venv .venv-peers && .venv-peers/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/requirements-peers.txt
	@for claim in $(CLAIMS); do $(PY) benchmarks/$$claim.py || exit 1; done

docs: setup ## run every example in README.md and docs/
	$(OFFLINE) $(PY) -m pytest tests/test_docs.py
