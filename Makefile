# A thin front to CMake: every target first runs tools/setup, which installs what is missing and says so.
# Settings: JOBS=2, CXX=, LAMINA_TORCH=DIR (another libtorch), LAMINA_MODEL=PATH (another model for the demo).
JOBS ?= 2
PREFIX ?= /usr/local
FUZZ_SECONDS ?= 60
# Make's own default would hide that the user chose nothing.
ifeq ($(origin CXX),default)
  undefine CXX
else
  export CXX
endif

.PHONY: all configure everything demo test bench parity fuzz asan format check install clean help
.DEFAULT_GOAL := all

all: configure ## build the program: build/lamina
	@cmake --build build -j $(JOBS) --target lamina_main

configure:
	@tools/setup
	@tools/configure dev

everything: configure
	@cmake --build build -j $(JOBS)

demo: all ## fetch a 135M model (98 MB, once), cut 8 of its 60 sub-layers, show what that cost; halve a small U-Net
	@tools/demo

test: everything ## build and run every test
	@ctest --test-dir build --output-on-failure

bench: ## measure against the reference packages, as ratios from one run (20 minutes on a quiet machine)
	@JOBS=$(JOBS) tools/bench

parity: ## compare with the Python reference packages (installs them into .venv)
	@tools/setup --tests
	@tools/configure dev
	@cmake --build build -j $(JOBS)
	@ctest --test-dir build --output-on-failure -L parity

fuzz: ## run every fuzz target for FUZZ_SECONDS=60 each (needs clang)
	@tools/setup
	@tools/fuzz $(FUZZ_SECONDS) -j $(JOBS)

asan: ## run every test under the address and undefined-behaviour sanitizers
	@tools/setup
	@tools/configure asan
	@cmake --build build-asan -j $(JOBS)
	@ctest --test-dir build-asan --output-on-failure

format: ## format the C++ sources in place
	@tools/check_format --fix

check: ## format, rooms and words, without building
	@tools/check_format
	@tools/check_rooms
	@tools/check_words

install: ## install the program, the library and its headers to PREFIX=/usr/local
	@tools/setup
	@tools/configure release
	@cmake --build build-release -j $(JOBS)
	@cmake --install build-release --prefix $(PREFIX)

clean: ## remove build folders and out/; the fetched model and .venv stay
	@rm -rf build build-release build-asan build-fuzz out

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1@\2/p' Makefile | awk -F@ '{ printf "%-14s %s\n", $$1, $$2 }'
	@echo "  settings: JOBS=2, CXX=g++, LAMINA_TORCH=DIR, LAMINA_MODEL=PATH, PREFIX=DIR, FUZZ_SECONDS=60"
