# SPDX-License-Identifier: GPL-2.0-or-later
#
# "make help" lists the targets that a person types.

python = /usr/bin/python3
# make 4.3 does not export to $(shell); without Python, configure has not run yet
home := $(if $(wildcard $(python)),$(shell BASE='$(BASE)' $(python) -m scripts.queue.bases),build/trixie)
queue := $(wildcard series/*/* series/*/. docs/system/ppc/*)
meson = PYTHONPATH="$$($(python) -m scripts.debian.roots)" $(python) -m mesonbuild.mesonmain
ninja = $(python) -m scripts.debian.binaries

# One cache for all clones of this repository
export CCACHE_BASEDIR := $(CURDIR)
export CCACHE_NOHASHDIR := 1

.PHONY: help hooks boot check quick fuzz coverage mutants matrix libvirt host-kit clean kvm tcg kvm-ubsan upstream/src upstream/kvm \
        check-bases check-upstream check-hosts bisect-check check-topics check-docs docs series deb-source

help:
	@echo 'make boot          start a nested guest under Debian'\''s QEMU and the patched one'
	@echo 'make check         run all tests (ONLY=PATTERN: tests whose name matches)'
	@echo 'make hooks         enable a git hook that lints the files of each commit'
	@echo 'make quick         check the patches; run the tests that reach your change'
	@echo 'make matrix        run all rows of tests/lab/matrix.cfg; see build/matrix.html'
	@echo 'make libvirt       use libvirt on four emulated hosts, step by step'
	@echo 'make host-kit      pack a test for POWER hosts with KVM (QEMU=1: with QEMU)'
	@echo 'make fuzz          run random hosts and guests (SECONDS=600 SEED=1)'
	@echo 'make coverage      show the lines that no test reaches; see build/coverage'
	@echo 'make mutants       check that a test fails for each small fault (ONLY=FILE)'
	@echo 'make series        write patches for git am to build/series (TOPIC=host-compat)'
	@echo 'make check-bases   build and test on every base (BASES="trixie sid PATH")'
	@echo 'make check-upstream  test the series over upstream'\''s own version'
	@echo 'make check-hosts   run boot and check on bare Debian 12 and 13, as root'
	@echo 'make bisect-check  build and test each commit of the series'
	@echo 'make check-topics  build and test each topic with only the topics it needs'
	@echo 'make check-docs    run the commands that a new user types first'
	@echo 'make docs          build QEMU'\''s manual with the new page, in build/docs'
	@echo 'make deb-source    build Debian'\''s source package in build/deb-source'
	@echo 'make kvm           build the patched QEMU for ppc64le, with KVM'
	@echo 'make tcg           build the patched QEMU for this machine, with TCG'
	@echo 'make clean         remove build/'

# Everything that a build needs, and the current series
$(home)/.ready: configure $(addprefix scripts/, $(addprefix debian/, builds.py prepare.py roots.py suite.py) \
                $(addprefix queue/, commits.py graft.py)) tests/lab/pseries.mak series/. $(queue)
	./configure
	@touch $@

kvm tcg: $(home)/.ready
	@$(ninja) $(home)/$@ qemu-system-ppc64

kvm-ubsan: kvm
	@$(python) -m tests.relink $@

# The base with upstream's own version, and its build
upstream/src: $(home)/.ready
	@$(python) -m tests.queue.stand_in

upstream/kvm: $(home)/.ready
	@$(python) -m tests.queue.stand_in kvm
	@$(ninja) $(home)/$@ qemu-system-ppc64

boot: $(home)/.ready
	@scripts/lab boot

# SECONDS=N, SEED=S
fuzz: kvm-ubsan
	@scripts/kvmsim fuzz --seconds $(or $(SECONDS),600) --seed $(or $(SEED),1)

matrix: $(home)/.ready
	@scripts/lab matrix --json build/matrix.json --html build/matrix.html

libvirt: $(home)/.ready
	@scripts/lab libvirt-all

# QEMU=1 adds ours
host-kit: $(if $(QEMU),kvm,$(home)/.ready)
	@$(python) -m tests.lab.kit $(if $(QEMU),--qemu)

coverage: kvm tcg
	@QEMU_BUILDS='$(abspath $(home))' $(python) -m tests.coverage

# ONLY=FILE|FILE:LINE|TOPIC, JOBS=N
mutants: kvm tcg
	@QEMU_BUILDS='$(abspath $(home))' $(python) -m tests.mutants $(if $(ONLY),--only '$(ONLY)') $(if $(JOBS),--jobs $(JOBS))

# TOPIC=NAME, VERSION=vN, RFC=1
series:
	@scripts/series $(if $(TOPIC),--topic $(TOPIC)) $(if $(VERSION),--version $(VERSION)) $(if $(RFC),--rfc)

# BASES="trixie sid PATH"
check-bases: $(home)/.ready
	@$(python) -m tests.queue.bases $(BASES)

# Takes 15 minutes
check-upstream: upstream/src
	@$(python) -m tests.queue.upstream

# HOSTS="bookworm trixie"
check-hosts: $(home)/.ready
	@$(python) -m tests.hosts $(HOSTS)

# Each commit, with KVM and with TCG
bisect-check: $(home)/.ready
	@$(python) -m tests.queue.bisect

# Each topic with the topics it needs, with KVM and with TCG; TOPIC=NAME
check-topics: $(home)/.ready
	@$(python) -m tests.queue.topics $(if $(TOPIC),--topic $(TOPIC))

docs: $(home)/.ready
	@scripts/docs

check-docs: tcg kvm
	@$(python) -m tests.docs --run

# SUITE=trixie|sid
deb-source: $(home)/.ready
	@$(python) -m scripts.queue.deb_source $(or $(SUITE),trixie)

quick: kvm tcg
	@QEMU_BUILDS='$(abspath $(home))' $(python) -m tests.quick

# ONLY=PATTERN: the tests with matching names, as in ONLY='refused-*'
check: kvm tcg kvm-ubsan upstream/src
	@$(MAKE) -s kvm BASE=$(home)/upstream/src
	@$(meson) setup --reconfigure build/meson >build/meson.log || \
	    { cat build/meson.log; exit 1; }
	@rm -f build/meson/meson-logs/testlog.json
	@QEMU_BUILDS='$(abspath $(home))' $(meson) test -C build/meson --num-processes 2 $(if $(ONLY),'$(ONLY)'); ended=$$?; \
	    $(python) -m tests.tally build/meson && exit $$ended

# does not overwrite another hook
hooks:
	@hook=$$(git rev-parse --git-path hooks)/pre-commit; \
	    [ ! -e "$$hook" ] || cmp -s tests/lint/pre-commit "$$hook" || \
	    { echo "make hooks: $$hook exists already: move it, then run make hooks again" >&2; exit 1; }; \
	    mkdir -p "$${hook%/*}" && cp tests/lint/pre-commit "$$hook" && echo "$$hook lints what a commit changes"

clean:
	rm -rf build
