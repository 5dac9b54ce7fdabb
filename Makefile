# The one entry point: people, ./dev and .ci/run all come through here. `make help` lists it.
#
#   make PYTHON=python3.13       builds and tests for another interpreter, in .venv-<its tag>
#   make test T='-k chunked -x'  hands options to pytest
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-builtin-rules --no-print-directory
.DEFAULT_GOAL := all

ifeq ($(origin PYTHON),undefined)
PYTHON := python3
EXTRAS ?= dev
VENV ?= .venv
endif
TAG := $(shell $(PYTHON) -c 'import sys, sysconfig; print("cp%d%d" % sys.version_info[:2] + ("t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""))')
ifeq ($(TAG),)
$(error $(PYTHON) does not run; ./dev says what a machine needs)
endif
EXTRAS ?= test
VENV ?= .venv-$(TAG)

STAMP := $(VENV)/.stamp-$(EXTRAS)
BIN := $(CURDIR)/$(VENV)/bin
export PATH := $(BIN):$(PATH)
JOBS ?= $(shell nproc)
FUZZ_SECONDS ?= 60
T ?=
B ?=
# A test that fails runs once more, alone: see tests/again.py.
PYTEST = $(BIN)/python tests/again.py $(T)
# Tests wait as much as they compute, so twice as many files run at a time as there are cores, in
# the order of tests/matrix.py; what measures runs alone.
TEST_JOBS ?= $(shell echo $$((2 * $$(nproc))))
PARALLEL = -n $(TEST_JOBS) --dist loadfile --no-loadscope-reorder

# Every build lives in build/<kind>-<tag>. What each kind is built with:
WERROR ?= true
OPTIONS_debug = -Dbuildtype=debugoptimized
OPTIONS_release = -Dbuildtype=release -Db_lto=true
OPTIONS_clang = -Dbuildtype=debugoptimized
OPTIONS_asan = -Dbuildtype=debugoptimized -Db_sanitize=address,undefined -Dfailure_injection=true
OPTIONS_tsan = -Dbuildtype=debugoptimized -Db_sanitize=thread -Dfailure_injection=true
OPTIONS_cov = -Dbuildtype=debug -Db_coverage=true -Dfailure_injection=true -Dnative_tests=true
OPTIONS_native = -Dextension=false -Dnative_tests=true $(OPTIONS_asan)
OPTIONS_fuzz = -Dextension=false -Dfuzzers=true $(OPTIONS_asan)
CLANG_KINDS := clang fuzz tsan

kind_of = $(firstword $(subst -, ,$(notdir $(1))))
compile = meson compile -C $(1) -j $(JOBS) >$(1)/compile.log || { cat $(1)/compile.log; exit 1; }
# A copy of the package around another build of the extension, for use through PYTHONPATH.
tree_of = rm -rf $(1)/tree && mkdir $(1)/tree && cp -r ppserver $(1)/tree && \
	rm -rf $(1)/tree/ppserver/native $(1)/tree/ppserver/*.so && \
	cp $(1)/ppserver/native/_native*.so $(1)/tree/ppserver/
use_tree = PYTHONSAFEPATH=1 PYTHONPATH=$(CURDIR)/$(1)/tree
check_tree = $(BIN)/python -c 'import ppserver._native as n; assert "$(1)" in n.__file__, n.__file__'
runtime = $(shell gcc -print-file-name=$(1))

.PHONY: all release venv help test test-native test-python test-fuzz test-more test-all check \
	format \
	stubtest asan tsan fuzz leaks cov bench gate docs dist try-wheel ci clean distclean

all: build/debug-$(TAG)/build.ninja ## build the extension in place, with assertions
	@$(call compile,$(<D))
	@install -m 755 $(<D)/ppserver/native/_native*.so ppserver/

release: build/release-$(TAG)/build.ninja ## build the extension in place, as a wheel has it
	@$(call compile,$(<D))
	@install -m 755 $(<D)/ppserver/native/_native*.so ppserver/

venv: $(STAMP) ## make or bring up to date the virtual environment
$(STAMP): pyproject.toml scripts/constraints.txt scripts/make-venv.sh
	@scripts/make-venv.sh $(PYTHON) $(VENV) $(EXTRAS)

# Libraries that only the long form needs.
LIBRARIES := $(VENV)/.stamp-libraries
$(LIBRARIES): $(STAMP)
	@scripts/make-venv.sh $(PYTHON) $(VENV) libraries

build/%/build.ninja: | $(STAMP)
	@mkdir -p build
	@$(if $(filter $(call kind_of,$(@D)),$(CLANG_KINDS)),CC=clang) \
		meson setup $(@D) -Dwerror=$(WERROR) $(OPTIONS_$(call kind_of,$(@D))) \
		>$(@D).log 2>&1 || { cat $(@D).log; rm -rf $(@D); exit 1; }

test: test-native test-fuzz test-python ## C units, 10 s of each fuzz target, the Python suite

test-native: build/native-$(TAG)/build.ninja ## C unit tests under ASan and UBSan
	@$(call compile,$(<D))
	meson test -C $(<D) --print-errorlogs --no-rebuild --timeout-multiplier 3

test-fuzz:
	@$(MAKE) fuzz FUZZ_SECONDS=10

test-python: all $(if $(TEST_MORE),$(LIBRARIES)) ## the Python suite
ifeq ($(T),)
	$(PYTEST) $(PARALLEL) --ignore tests/bench
	$(PYTEST) tests/bench
else
	$(PYTEST)
endif

test-more: venv ## what other interpreters and sanitizers can change, the gate, the wheel
	scripts/test-more.sh

test-all: export TEST_ALL = 1
test-all: export TEST_MORE = 1
test-all: $(LIBRARIES) test ## every test in every variant and form, on every interpreter: hours
	scripts/test-more.sh --all

try-wheel: venv ## the wheel, built and installed into an environment of its own, serves
	$(BIN)/python scripts/try-wheel.py build/wheel-$(TAG)

check: all ## format, lint, types, layers, sizes
	ruff format --check .
	ruff check .
	clang-format --dry-run -Werror $$(git ls-files '*.c' '*.h')
	mypy
	python -m mypy.stubtest ppserver._native
	$(BIN)/python tests/tidy.py
	@$(MAKE) check-clang

check-clang: build/clang-$(TAG)/build.ninja
	@$(call compile,$(<D))

format: venv ## rewrite Python and C as the formatters want them
	ruff check --fix-only -q . && ruff format .
	clang-format -i $$(git ls-files '*.c' '*.h')

asan: build/asan-$(TAG)/build.ninja ## the Python suite on an ASan and UBSan build
	@$(call compile,$(<D))
	@$(call tree_of,$(<D))
	@export $(call use_tree,$(<D)) $(ASAN_ENV); $(call check_tree,$(<D)); $(PYTEST)
ASAN_ENV = LD_PRELOAD="$(call runtime,libasan.so) $(call runtime,libstdc++.so.6)" \
	PYTHONMALLOC=malloc TEST_SANITIZER=address \
	ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:handle_segv=0 \
	UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1

# Installing packages with an interpreter under TSan takes ages; one without, built from the same
# source, does that and the build, and the other only runs the tests.
tsan: ## Python tests on a TSan build, on a free-threaded CPython that is one as well
	@built=$$(scripts/get-freethreaded.sh --built); tsan=$$(scripts/get-freethreaded.sh --tsan); \
	$(MAKE) tsan-run PYTHON=$$built TSAN_PYTHON=$$tsan

tsan-run: build/tsan-$(TAG)/build.ninja
	@$(call compile,$(<D))
	@$(call tree_of,$(<D))
	@site=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
	export PYTHONSAFEPATH=1 PYTHONPATH=$(CURDIR)/$(<D)/tree:$$site:$(CURDIR) $(TSAN_ENV); \
	$(TSAN_PYTHON) -c 'import ppserver._native as n; assert "$(<D)" in n.__file__, n.__file__'; \
	rm -f build/tsan.log.*; \
	$(TSAN_PYTHON) tests/again.py $(or $(T),$(TSAN_TESTS) $(PARALLEL)) || status=$$?; \
	if ls build/tsan.log.* >/dev/null 2>&1; then \
		echo "ThreadSanitizer had something to say, of servers that the tests started, too:"; \
		head -n 200 build/tsan.log.*; exit 66; \
	fi; exit $${status:-0}
TSAN_ENV = TEST_SANITIZER=thread PYTHON_GIL=0 \
	TSAN_OPTIONS="suppressions=$(CURDIR)/tests/tsan.supp:halt_on_error=0:report_thread_leaks=0:exitcode=66:log_path=$(CURDIR)/build/tsan.log"
TSAN_TESTS = -m "not slow or tsan" --timeout 400 \
	$(addprefix tests/integration/test_,wsgi_threads.py server_api.py module_isolation.py threads.py balance.py)

fuzz: build/fuzz-$(TAG)/build.ninja ## each fuzz target for FUZZ_SECONDS (60)
	@$(call compile,$(<D))
	@scripts/fuzz.sh $(<D)/tests/fuzz $(FUZZ_SECONDS)

leaks: all ## allocation failures, reference counts, memory slopes
	$(PYTEST) tests/leaks

cov: build/cov-$(TAG)/build.ninja ## coverage of C and Python, in build/cov-<tag>/
	@$(call compile,$(<D))
	@$(call tree_of,$(<D))
	meson test -C $(<D) --no-rebuild
	export $(call use_tree,$(<D)); coverage run -m pytest $(T)
	coverage report
	gcovr --root . --object-directory $(<D) --filter ppserver/native --print-summary \
		--html-details $(<D)/coverage.html

gate: venv ## instructions a request beside those of a base commit (needs valgrind)
	$(BIN)/python -m contrib.bench gate

bench: release ## speed beside a baseline (needs wrk); B=scaling and others: many contexts
	$(BIN)/python -m contrib.bench $(B)

docs: all ## the documentation, in build/docs; warnings are errors
	sphinx-build -q -W --keep-going -d build/doctrees docs build/docs

dist: venv ## source distribution and wheel, in dist/
	python -m build

ci: ## what continuous integration runs
	.ci/run

clean: ## remove what was built
	rm -rf build dist ppserver/_native*.so
	find ppserver tests examples contrib -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## and the virtual environments
	rm -rf .venv .venv-*

help: ## this list
	@sed -n 's/^\([a-z-]*\):.* ## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'
