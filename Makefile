# chatd toolkit. `make help` lists the targets; README.md has the tour.
#   SAN=address,undefined   sanitized build in build-<SAN>     DEV=1   -O0 -g, warnings are errors
#   MUTANT=NAME             with a known bug planted (lib/util/mutant.h), in build-NAME
#   CC=clang                another compiler                   PREFIX=/usr/local for install

CC      ?= gcc
PREFIX  ?= /usr/local
DESTDIR ?=
comma   := ,
B       := build$(if $(SAN),-$(subst $(comma),-,$(SAN)))$(if $(MUTANT),-$(MUTANT))
SUDO    := $(if $(filter 0,$(shell id -u)),,sudo)

PKGS    := libwebsockets libsodium jansson libnl-3.0 libnl-route-3.0 zlib libzstd libpcap libcurl
CFLAGS  ?= $(if $(DEV),-O0,-O2) -g
WARN    := -Wall -Wextra $(if $(DEV),-Werror)
ALL_CFLAGS = -std=gnu11 -D_GNU_SOURCE -ffp-contract=off -fno-omit-frame-pointer -pthread $(WARN) $(CFLAGS) \
	$(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=undefined) -Ilib -I. -I$(B)/gen $(PKG_CFLAGS) -MMD -MP \
	-DCHAT_VERSION='"$(VERSION)"' $(if $(MUTANT),-DMUTANT_$(MUTANT)=1)
VERSION := $(shell git describe --always --dirty 2>/dev/null || echo unknown)
PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
LDLIBS  = $(shell pkg-config --libs $(PKGS)) -lev -lhiredis -lrocksdb -lm -pthread
LDFLAGS += $(if $(SAN),-fsanitize=$(SAN))

# ROOMS="util proto" builds the library from these rooms only (quick work on one room)
LIB_SRC := $(shell find $(if $(ROOMS),$(ROOMS:%=lib/%),lib) -name '*.c' | sort)
LIB_OBJ := $(LIB_SRC:%.c=$(B)/%.o)
LIB     := $(B)/libchat.a
TOOLS   := $(patsubst cmd/%/,%,$(wildcard cmd/*/))
BIN     := $(TOOLS:%=$(B)/%)
UNIT    := $(patsubst tests/%.c,$(B)/tests/%,$(shell find tests/unit tests/sim -name 'test_*.c' 2>/dev/null | sort))
FUZZ    := $(patsubst tests/%.c,$(B)/tests/%,$(shell find tests/fuzz -name 'fuzz_*.c' 2>/dev/null | sort))
BENCH   := $(patsubst tests/%.c,$(B)/tests/%,$(shell find tests/bench -name 'bench_*.c' 2>/dev/null | sort))
HELPERS := $(patsubst tests/%.c,$(B)/tests/%,$(shell find tests/e2e tests/engines -name '*.c' 2>/dev/null | sort))

.DELETE_ON_ERROR:
.PHONY: all deps demo sim-mutants test test-unit test-e2e fuzz lint format bench install uninstall clean help

all: deps
	@$(MAKE) --no-print-directory build

.PHONY: build
build: $(BIN)

help:
	@echo "make deps | all | demo | sim-mutants | test | test-unit | test-e2e | test-kernel-netem | fuzz | lint | format | bench | install | uninstall | clean"

# Installs Debian packages, and only those that are missing.
deps:
	@tests/deps.sh

$(B)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -c -o $@ $<

$(LIB): $(LIB_OBJ)
	@rm -f $@
	$(AR) rcs $@ $^

define TOOL
$(B)/$(1): $(patsubst %.c,$(B)/%.o,$(wildcard cmd/$(1)/*.c)) $(LIB)
	$$(CC) $$(LDFLAGS) -o $$@ $$^ $$(LDLIBS)
endef
$(foreach t,$(TOOLS),$(eval $(call TOOL,$(t))))

$(B)/tests/unit/%: $(B)/tests/unit/%.o $(LIB)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS) -lcmocka
$(B)/tests/sim/%: $(B)/tests/sim/%.o $(LIB)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS) -lcmocka
$(B)/tests/fuzz/%: $(B)/tests/fuzz/%.o $(B)/tests/fuzz/driver.o $(LIB)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)
$(B)/libfuzzer/%: $(B)/tests/fuzz/%.o $(LIB)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -fsanitize=fuzzer -o $@ $^ $(LDLIBS)
$(B)/tests/bench/%: $(B)/tests/bench/%.o $(LIB)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)
$(B)/tests/engines/%.o: ALL_CFLAGS += $(shell pkg-config --cflags fuse3 2>/dev/null)
$(B)/tests/engines/%: $(B)/tests/engines/%.o $(LIB)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS) $(shell pkg-config --libs fuse3 2>/dev/null)
$(B)/tests/e2e/%: $(B)/tests/e2e/%.o $(LIB)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)
.PRECIOUS: $(B)/%.o

.PHONY: test-build
test-build: build $(UNIT) $(FUZZ) $(HELPERS)

# The whole quick suite; sets everything up by itself and ends with "N passed, N failed, N skipped".
test: deps
	@$(MAKE) --no-print-directory test-build
	@B=$(B) tests/run.sh unit sim fuzz e2e
test-unit: test-build
	@B=$(B) tests/run.sh unit sim fuzz
test-e2e: test-build
	@B=$(B) tests/run.sh e2e

# Kernel links for real, inside user-mode Linux; takes about ten minutes.
.PHONY: test-kernel-netem
test-kernel-netem: deps
	@tests/deps.sh user-mode-linux
	@$(MAKE) --no-print-directory build
	@B=$(B) TEST_SECONDS=3600 tests/run.sh long/kernel_netem

demo: deps
	@$(MAKE) --no-print-directory build
	@B=$(B) tests/demo.sh

bench: deps
	@$(MAKE) --no-print-directory build $(BENCH)
	@B=$(B) tests/bench/run.sh

# Guided by coverage, with sanitizers, as long as wanted: make fuzz TARGET=pcap FUZZ_SECONDS=3600. Inputs that reach new code
# go to build-fuzz/corpus/TARGET; one that ends the target stays beside them.
TARGET ?= pcap
FUZZ_SECONDS ?= 60
fuzz:
	@tests/deps.sh libclang-rt-14-dev
	@$(MAKE) --no-print-directory CC=clang SAN=fuzzer-no-link,address,undefined B=build-fuzz build-fuzz/libfuzzer/fuzz_$(TARGET)
	@mkdir -p build-fuzz/corpus/$(TARGET)
	LSAN_OPTIONS=suppressions=tests/lsan.supp build-fuzz/libfuzzer/fuzz_$(TARGET) -max_total_time=$(FUZZ_SECONDS) -timeout=10 \
		-rss_limit_mb=512 -max_len=65536 -print_final_stats=1 -artifact_prefix=build-fuzz/$(TARGET)- \
		build-fuzz/corpus/$(TARGET) tests/fuzz/corpus/$(TARGET)

# Known bugs, planted one at a time, must be found by the simulator; the clean build must be clean.
sim-mutants: deps
	@$(MAKE) --no-print-directory build
	@B=$(B) CC=$(CC) tests/sim/mutants.sh
.PHONY: print-flags print-libs
print-flags:
	@echo '$(subst ','\'',$(ALL_CFLAGS))' | sed "s/-DCHAT_VERSION='[^']*'//; s/-MMD -MP//"
print-libs:
	@echo '$(LDFLAGS) $(LDLIBS)'

lint: deps
	@CC=$(CC) tests/lint/run.sh

format:
	@git ls-files '*.c' '*.h' | xargs clang-format -i

install: build
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/man/man1 \
		$(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(PREFIX)/share/chatd/scenarios
	for t in $(TOOLS); do \
		install -m 755 $(B)/$$t $(DESTDIR)$(PREFIX)/bin/ && \
		$(B)/$$t --man > $(DESTDIR)$(PREFIX)/share/man/man1/$$t.1 && \
		$(B)/$$t --completion > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/$$t || exit 1; done
	cp -r scenarios/. $(DESTDIR)$(PREFIX)/share/chatd/scenarios/

uninstall:
	for t in $(TOOLS); do rm -f $(DESTDIR)$(PREFIX)/bin/$$t $(DESTDIR)$(PREFIX)/share/man/man1/$$t.1 \
		$(DESTDIR)$(PREFIX)/share/bash-completion/completions/$$t; done
	rm -rf $(DESTDIR)$(PREFIX)/share/chatd

clean:
	rm -rf build build-* reports/out

-include $(shell find $(B) -name '*.d' 2>/dev/null)
