# The front door; meson does the building (meson.build), tools/ and test/ the rest.
# Everything made here stays in build*/ and .deps/, except the packages that setup installs.

JOBS ?= $(shell nproc)
BUILDTYPE ?= debugoptimized
PREFIX ?= /usr/local
FUZZ_SECONDS ?= 10
SOAK_SECONDS ?= 600
SOAK_KILLS ?= 200
export JOBS FUZZ_SECONDS

.DEFAULT_GOAL := all
.PHONY: all setup demo test unit bench soak lab lint fuzz format install clean help

all: setup build/build.ninja   ## install what is missing, build into build/
	ninja -C build -j $(JOBS)

setup:                         ## install what is missing (apt), fetch llhttp and the guest's kernel
	@tools/setup

build/build.ninja: | setup
	meson setup --buildtype $(BUILDTYPE) --prefix $(PREFIX) build

demo: all                      ## start a node and run functions of every class
	tools/demo

test: setup                    ## all tests: unit, again under sanitizers, host, short fuzzing
	@test/run

unit: all                      ## the unit tests alone, quick
	meson test -C build --suite unit --print-errorlogs

bench: all                     ## measure, with floors and peers in the same run
	@tools/setup bench
	bench/run

soak: all                      ## a node under load for SOAK_SECONDS (600), then SOAK_KILLS (200) kills
	test/host/soak.py build --seconds $(SOAK_SECONDS)
	test/host/survival.py build --kills $(SOAK_KILLS)

lab: all                       ## tests that want another kernel, in a virtual machine
	test/lab/lab.py build

lint: setup                    ## static analysis: cppcheck, clang-tidy, gcc -fanalyzer
	@test/lint

fuzz: setup                    ## each fuzz target for FUZZ_SECONDS (10)
	@test/fuzz/run

format:                        ## clang-format over what git diff shows against HEAD; ALL=1: everything
	@tools/setup lint
	@tools/format $(if $(ALL),--all)

install: all                   ## into PREFIX (/usr/local), below DESTDIR
	meson install -C build --no-rebuild

clean:                         ## remove what was built; .deps stays
	rm -rf build build-*

help:                          ## this list
	@sed -n 's/^\([a-z]*\):.*##  */\1\t/p' Makefile | expand -t 12
