# make install  set up .venv       make demo   the sample world, live
# make test     every test         make check  format, lint, types, fast tests
# make bench    the measurements, written to a file

MINIMUM := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON  ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$p" -c '$(MINIMUM)' 2>/dev/null && { echo "$$p"; break; }; done)
BIN     := .venv/bin
STAMP   := .venv/.installed

.PHONY: install demo test check bench
install: $(STAMP)

# Installed again only when pyproject.toml changed; without what compiling needs, since an editable install is not compiled.
$(STAMP): pyproject.toml
	@test -n "$(PYTHON)" || { echo "Touchline needs Python 3.11 or newer, with venv, on PATH" >&2; exit 1; }
	@test -x $(BIN)/python || "$(PYTHON)" -m venv .venv
	$(BIN)/python -m pip install --quiet 'setuptools>=77'
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable '.[dev]'
	@touch $@

demo: $(STAMP)
	$(BIN)/python -m deploy.demo

test: $(STAMP)
	$(BIN)/python -m pytest

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -m "not slow"

bench: $(STAMP)
	$(BIN)/python -m tests.bench
