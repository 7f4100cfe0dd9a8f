# make quickstart: sets up .venv and runs the whole pipeline on the embedded task
# make test:       sets up .venv and runs lint, types and tests, as CI does
# make mutants:    puts faults in, one at a time, and shows that a test turns red
# make peers:      compares PPO and DPO with TRL, every model family with transformers
# make bench:      measures speed and memory beside TRL and the machine's limits

PYTHON ?= $(shell for v in 3.12 3.11 3.13; do command -v python$$v >/dev/null && python$$v -c '' 2>/dev/null && echo python$$v && break; done || echo python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

.PHONY: quickstart test mutants peers bench bench-scaling lint install clean

quickstart: install
	$(BIN)/python recipes/rlhf.py $(ARGS)

test: install lint
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

mutants: install
	$(BIN)/python -m tests.conformance.run_mutants $(ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: $(STAMP)

$(STAMP): setup.py pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else "tfrlhf needs Python 3.11 to 3.13, not %d.%d: make PYTHON=python3.12" % v)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,plots,sentiment]'
	touch $(STAMP)

# The time from here on, installation included.
peers: export PEERS_STARTED := $(shell date +%s)
peers: install .venv-peers/installed .venv-peers-dpo/installed
	$(BIN)/python -m tests.peers .venv-peers/bin/python build/peers
	$(BIN)/python -m tests.peers.dpo .venv-peers-dpo/bin/python build/peers-dpo
	$(BIN)/python -m tests.parity

bench: install .venv-peers/installed .venv-peers-dpo/installed
	$(BIN)/python -m benchmarks $(ARGS)

bench-scaling: install
	$(BIN)/python -m benchmarks.scaling $(ARGS)

.venv-peers/installed: tests/peers/requirements.txt
	test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' $<)"
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

.venv-peers-dpo/installed: tests/peers/requirements-dpo.txt
	test -x .venv-peers-dpo/bin/python || $(PYTHON) -m venv .venv-peers-dpo
	.venv-peers-dpo/bin/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' $<)"
	.venv-peers-dpo/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

clean:
	rm -rf $(VENV) .venv-peers .venv-peers-dpo build *.egg-info
