# SPDX-License-Identifier: GPL-2.0-or-later
#
# "make help" lists the targets that a person types.

python = /usr/bin/python3
# make 4.3 does not export to $(shell); without Python, configure has not run yet
home := $(if $(wildcard $(python)),$(shell BASE='$(BASE)' $(python) -m scripts.queue.bases),build/trixie)
queue := $(wildcard series/*/* series/*/. docs/system/ppc/*)
meson = PYTHONPATH="$$($(python) -m scripts.debian.roots)" $(python) -m mesonbuild.mesonmain
ninja = $(python) -m scripts.debian.binaries
# Tests run on these builds as they are
built = QEMU_BUILDS='$(abspath $(home))' $(python) -m
slow = bases hosts topics bisect upstream docs

# One cache for all clones of this repository
export CCACHE_BASEDIR := $(CURDIR)
export CCACHE_NOHASHDIR := 1

.PHONY: help boot check compare matrix libvirt host-kit kvm tcg kvm-ubsan quick mutants coverage fuzz docs hooks clean \
        upstream/src upstream/kvm series deb-source bisect-check check-all $(addprefix check-,$(slow))

help:
	@echo 'Try it:     make boot        a nested guest under Debian'\''s QEMU and the patched one'
	@echo '            make check       all tests (ONLY=PATTERN)'
	@echo '            make matrix      all rows of tests/lab/matrix.table (make compare: those in README)'
	@echo '            make libvirt     libvirt on four emulated hosts, step by step'
	@echo '            make host-kit    a tarball with a test for POWER hosts (QEMU=1: with QEMU)'
	@echo 'Change it:  make kvm tcg     build the patched QEMU for ppc64le, and for this machine'
	@echo '            make quick       the form of the patches, and the tests that reach your change'
	@echo '            make mutants     small faults, for each of which a test must fail (ONLY=FILE)'
	@echo '            make coverage    the lines that no test reaches; see build/coverage'
	@echo '            make fuzz        random hosts and guests (SECONDS=600 SEED=1)'
	@echo '            make hooks       a git hook that lints the files of each commit'
	@echo '            make clean       remove build/'
	@echo 'Send it:    make series      patches for git am, in build/series (TOPIC=NAME VERSION=v2 RFC=1)'
	@echo '            make deb-source  Debian'\''s source package, in build/deb-source (SUITE=sid)'
	@echo '            make docs        QEMU'\''s manual with the new page, in build/docs'
	@echo '            make check-all   the slow checks (ONLY="$(slow)")'

# Everything that a build needs, and the current series
$(home)/.ready: configure $(addprefix scripts/, $(addprefix debian/, builds.py roots.py suite.py) \
                $(addprefix queue/, commits.py graft.py)) scripts/debian/pseries.mak series/. $(queue)
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

check: kvm tcg kvm-ubsan upstream/src
	@$(MAKE) -s kvm BASE=$(home)/upstream/src
	@$(meson) setup --reconfigure build/meson >build/meson.log || { cat build/meson.log; exit 1; }
	@rm -f build/meson/meson-logs/testlog.json
	@QEMU_BUILDS='$(abspath $(home))' $(meson) test -C build/meson --num-processes 2 $(if $(ONLY),'$(ONLY)'); ended=$$?; \
	    $(python) -m tests.tally build/meson && exit $$ended

matrix: $(home)/.ready
	@scripts/lab matrix --json build/matrix.json --html build/matrix.html

compare: $(home)/.ready
	@scripts/lab compare

libvirt: $(home)/.ready
	@scripts/lab libvirt-all

host-kit: $(if $(QEMU),kvm,$(home)/.ready)
	@$(python) -m tests.lab.kit $(if $(QEMU),--qemu)

quick coverage: kvm tcg
	@$(built) tests.$@

# ONLY=TOPIC|FILE|FILE:LINE, JOBS=N
mutants: kvm tcg
	@$(built) tests.mutants $(if $(ONLY),--only '$(ONLY)') $(if $(JOBS),--jobs $(JOBS))

fuzz: kvm-ubsan
	@scripts/kvmsim fuzz --seconds $(or $(SECONDS),600) --seed $(or $(SEED),1)

# does not overwrite another hook
hooks:
	@hook=$$(git rev-parse --git-path hooks)/pre-commit; \
	    [ ! -e "$$hook" ] || cmp -s tests/lint/pre-commit "$$hook" || \
	    { echo "make hooks: $$hook exists already: move it, then run make hooks again" >&2; exit 1; }; \
	    mkdir -p "$${hook%/*}" && cp tests/lint/pre-commit "$$hook" && echo "$$hook lints what a commit changes"

clean:
	rm -rf build

series:
	@scripts/series $(if $(TOPIC),--topic $(TOPIC)) $(if $(VERSION),--version $(VERSION)) $(if $(RFC),--rfc)

deb-source: $(home)/.ready
	@$(python) -m scripts.queue.deb_source $(or $(SUITE),trixie)

# Warnings are errors.  Sphinx only warns about a page when it reads it: read all again after a run with warnings.
docs: $(home)/.ready
	@for page in *.rst docs/*.rst; do rst2html --strict "$$page" /dev/null || exit 1; done
	@[ -e build/docs.p/clean ] || rm -rf build/docs.p
	@rm -f build/docs.p/clean
	@CONFDIR=/etc/qemu sphinx-build -q -W --keep-going -j auto -Dkerneldoc_werror=1 -Drelease= \
	    -Dversion="$$(cat $(home)/src/VERSION)" -b html -d build/docs.p $(home)/src/docs build/docs
	@touch build/docs.p/clean
	@echo "build/docs/system/ppc/host-compat.html"

check-all:
	@$(MAKE) -s -k -j1 $(addprefix check-,$(or $(ONLY),$(slow)))

# BASES="trixie sid PATH", HOSTS="bookworm trixie", TOPIC=NAME
names-bases = $(BASES)
names-hosts = $(HOSTS)
names-topics = $(TOPIC)
run-upstream = BASE=$(home)/upstream/src QEMU_BUILDS= sh -ec '$(MAKE) -s kvm; scripts/kvmsim suite --qemu patched; \
    scripts/lab matrix --qemu patched --only tags=upstream'
$(addprefix check-,$(slow)): check-%: $(home)/.ready
	@if $(or $(run-$*),$(python) -m tests.slow.$* $(names-$*)); then echo "ok: $@"; else echo "failed: $@"; exit 1; fi

check-upstream: upstream/src

bisect-check: check-bisect
