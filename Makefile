# SPDX-License-Identifier: GPL-2.0-or-later
#
# The front door.  "make help" lists what there is to do.

python = /usr/bin/python3
lib = PYTHONPATH=scripts $(python) -m lib
# make 4.3 does not export to $(shell); without Python configure was never run
home := $(if $(wildcard $(python)),$(shell BASE='$(BASE)' $(lib) home),build/trixie)
queue := $(wildcard series/*/* series/*/. hw/ppc/* include/hw/ppc/* target/ppc/* \
                    docs/system/ppc/* tests/unit/*)
meson = PYTHONPATH="$$($(lib) meson)" $(python) -m mesonbuild.mesonmain
ninja = $(lib) ninja

# One cache for all clones of this repository
export CCACHE_BASEDIR := $(CURDIR)
export CCACHE_NOHASHDIR := 1

.PHONY: help hooks boot check quick unit fuzz bench coverage mutants matrix libvirt host-kit clean kvm tcg kvm-ubsan \
        check-bases check-hosts check-faults bisect-check check-topics check-docs docs series deb-source

help:
	@echo 'make boot      start a nested guest under Debian'\''s QEMU and under ours'
	@echo 'make check     all tests that a change has to pass (ONLY=PATTERN: those of such names)'
	@echo 'make hooks     lint what changes at each git commit'
	@echo 'make quick     before a commit: the queue, and the tests that reach the change'
	@echo 'make matrix    every row of tests/lab/matrix.cfg; page in build/matrix.html'
	@echo 'make libvirt   what libvirt makes of such hosts, step by step'
	@echo 'make host-kit  a tarball that tests a POWER host with KVM (QEMU=1 adds ours)'
	@echo 'make bench     what a change of mode costs, patched beside unpatched'
	@echo 'make fuzz      random hosts and guests (SECONDS=600 SEED=1)'
	@echo 'make coverage  which lines of the series no test reaches; page in build/coverage'
	@echo 'make mutants   whether a test fails for each small fault in the series (ONLY=FILE)'
	@echo 'make series    the mail-ready patches, in build/series (TOPIC=host-compat)'
	@echo 'make check-bases  build on every base, and compare QEMU'\''s own tests'
	@echo 'make check-hosts  boot and check on a bare Debian 12 and 13, as root'
	@echo 'make check-faults  strike boot, graft and deb-source half-way, and run them again, as root'
	@echo 'make bisect-check  build every commit of the series by itself'
	@echo 'make check-topics  build and test each topic with only what it needs'
	@echo 'make check-docs  run every command that a document shows'
	@echo 'make docs      QEMU'\''s manual with our page, in build/docs'
	@echo 'make deb-source  Debian'\''s source package with the series, in build/deb-source'
	@echo 'make kvm       build the ppc64le QEMU with KVM'
	@echo 'make tcg       build the QEMU of this machine, with TCG'
	@echo 'make clean     remove build/'

# Everything that a build needs, and the series as it is now.
$(home)/.ready: configure scripts/prepare $(addprefix scripts/lib/, builds.py debian.py grafting.py \
                laying.py roots.py) tests/lab/pseries.mak series/. $(queue)
	./configure
	@touch $@

kvm tcg: $(home)/.ready
	@$(ninja) $(home)/$@ qemu-system-ppc64

kvm-ubsan: kvm
	@$(lib) $@

# QEMU's own run of our unit test
unit: $(home)/.ready
	@$(ninja) $(home)/tcg tests/unit/test-ppc-host-compat
	@$(home)/tcg/tests/unit/test-ppc-host-compat

boot: $(home)/.ready
	@scripts/lab boot

# SECONDS=N, SEED=S
fuzz: kvm-ubsan
	@scripts/kvmsim fuzz --seconds $(or $(SECONDS),600) --seed $(or $(SEED),1)

bench: kvm
	@scripts/kvmsim bench

matrix: $(home)/.ready
	@scripts/lab matrix --json build/matrix.json --html build/matrix.html

libvirt: $(home)/.ready
	@scripts/lab libvirt-all

# QEMU=1 puts ours into it
host-kit: $(if $(QEMU),kvm,$(home)/.ready)
	@scripts/host-kit $(if $(QEMU),--qemu)

coverage: kvm tcg
	@QEMU_BUILDS='$(abspath $(home))' scripts/coverage

# ONLY=FILE|FILE:LINE|TOPIC, JOBS=N
mutants: kvm tcg
	@QEMU_BUILDS='$(abspath $(home))' scripts/mutants $(if $(ONLY),--only '$(ONLY)') $(if $(JOBS),--jobs $(JOBS))

# BASE=..., TOPIC=NAME, VERSION=vN, RFC=1
series: $(home)/.ready
	@scripts/series $(if $(TOPIC),--topic $(TOPIC)) $(if $(VERSION),--version $(VERSION)) $(if $(RFC),--rfc)

# BASES="trixie sid PATH"
check-bases: $(home)/.ready
	@$(python) -m tests.queue.bases $(BASES)

# HOSTS="bookworm trixie"
check-hosts: $(home)/.ready
	@$(python) -m tests.hosts $(HOSTS)

check-faults: $(home)/.ready
	@$(python) -m tests.faults.check

# Every commit by itself, both ways
bisect-check: $(home)/.ready
	@$(python) -m tests.queue.bisect

# Every topic with what it needs, both ways; TOPIC=NAME
check-topics: $(home)/.ready
	@$(python) -m tests.queue.topics $(if $(TOPIC),--topic $(TOPIC))

docs: $(home)/.ready
	@scripts/docs

# Minutes: it builds a source package and boots all kinds of guests
check-docs: tcg kvm-ubsan
	@$(python) -m tests.docs

# SUITE=trixie|sid
deb-source: $(home)/.ready
	@scripts/deb-source $(or $(SUITE),trixie)

quick: kvm tcg unit
	@QEMU_BUILDS='$(abspath $(home))' scripts/quick

# ONLY=PATTERN: the tests of these names, as in ONLY='refused-*'
check: kvm tcg kvm-ubsan unit
	@$(meson) setup --reconfigure build/meson >build/meson.log || \
	    { cat build/meson.log; exit 1; }
	@rm -f build/meson/meson-logs/testlog.json
	@QEMU_BUILDS='$(abspath $(home))' $(meson) test -C build/meson --num-processes 2 $(if $(ONLY),'$(ONLY)'); ended=$$?; \
	    $(lib) tally build/meson && exit $$ended

# a hook of the caller's own stays
hooks:
	@hook=$$(git rev-parse --git-path hooks)/pre-commit; \
	    [ ! -e "$$hook" ] || cmp -s tests/lint/pre-commit "$$hook" || \
	    { echo "make hooks: $$hook is there already: move it away first" >&2; exit 1; }; \
	    mkdir -p "$${hook%/*}" && cp tests/lint/pre-commit "$$hook" && echo "$$hook lints what a commit changes"

clean:
	rm -rf build
