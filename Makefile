# SPDX-License-Identifier: Apache-2.0
# warmcache: `make demo` shows it, `make test` tests it; both install what is missing first.
# Knobs: SAN=address,undefined|thread  WERROR=1  V=1  B=build directory  PREFIX= DESTDIR=

MAKEFLAGS += --no-builtin-rules
VERSION := $(shell cat VERSION)
CC ?= cc
CXX ?= c++
SAN ?=
comma := ,
B ?= build$(if $(SAN),/san-$(firstword $(subst $(comma), ,$(SAN))))
PREFIX ?= /usr/local
PARTS ?= build/parts
Q := $(if $(V),,@)

WARNINGS := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wundef -Wvla -Wformat=2 \
	-Wwrite-strings -Wcast-qual -Wcast-align -Wstrict-prototypes -Wmissing-prototypes \
	-Wimplicit-fallthrough -Wnull-dereference -Wdouble-promotion $(if $(WERROR),-Werror)
CFLAGS ?= -O2 -g
ALL_CFLAGS = -std=gnu11 -D_GNU_SOURCE -DWARM_VERSION='"$(VERSION)"' -I. -Icompiler/include \
	-fPIC -pthread -fvisibility=hidden -fstack-protector-strong $(WARNINGS) $(CFLAGS) $(FILE_CFLAGS) \
	$(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer,-D_FORTIFY_SOURCE=2)
ALL_LDFLAGS = -pthread -Wl,-z,relro,-z,now -Wl,--as-needed $(LDFLAGS) \
	$(if $(SAN),-fsanitize=$(SAN))
SYNC_LIBS := -lcurl -larchive -lzstd -lssl -lcrypto -ljansson -lexpat

# Objects by folder; scripts/check-layers holds the direction of their includes.
objects = $(patsubst %.c,$(B)/obj/%.o,$(wildcard $(1)/*.c))
BASE := $(call objects,lib/base)
KERNEL := $(call objects,lib/kernel)
SYNC := $(BASE) $(KERNEL) $(call objects,lib/layer) $(call objects,lib/store) $(call objects,lib/sync)
KUBE := $(call objects,lib/kube)
COMPILER := $(BASE) $(KERNEL) $(call objects,compiler)
HELPER := $(BASE) $(KERNEL) $(call objects,compiler/helper) \
	$(addprefix $(B)/obj/compiler/,cacheable.o native.o wire.o)

PROGRAMS := $(addprefix $(B)/bin/,warmcache warmcache-init warmcache-sidecar warmcache-prewarm warmcache-nvrtc)
LIBRARIES := $(addprefix $(B)/lib/,libwarmcache-compiler.a libwarmcache-compiler.so \
	nvrtc/libnvrtc.so.12 nvrtc/libnvrtc.so.13)
UNIT := $(patsubst tests/unit/%.c,$(B)/tests/%,$(wildcard tests/unit/test_*.c))
FUZZ := $(patsubst tests/fuzz/%.c,$(B)/tests/%,$(wildcard tests/fuzz/fuzz_*.c))
EXAMPLES := $(patsubst compiler/examples/%,$(B)/examples/%,$(basename \
	$(wildcard compiler/examples/*.c compiler/examples/*.cpp)))
BENCH := $(patsubst bench/%.c,$(B)/bench/%,$(wildcard bench/*.c))

.PHONY: all
all: $(PROGRAMS) $(LIBRARIES)

$(B)/obj/%.o: %.c Makefile VERSION
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -c $< -o $@

# One file is for CPUs that have it; it is called on no other.
$(B)/obj/lib/base/hash_avx2.o: FILE_CFLAGS = $(if $(findstring x86_64,$(shell $(CC) -dumpmachine 2>/dev/null)),-mavx2)

link = @mkdir -p $(@D); echo "  LINK $@"
$(B)/bin/warmcache-init: $(B)/obj/initcache/init.o $(SYNC)
$(B)/bin/warmcache-sidecar: $(call objects,sidecar) $(SYNC)
$(B)/bin/warmcache: $(call objects,cli) $(SYNC) $(KUBE)
$(B)/bin/warmcache-prewarm: $(call objects,k8s) $(SYNC) $(KUBE)
$(B)/bin/warmcache-init $(B)/bin/warmcache-sidecar $(B)/bin/warmcache $(B)/bin/warmcache-prewarm:
	$(link)
	$(Q)$(CC) $(ALL_LDFLAGS) $^ -o $@ $(SYNC_LIBS) $(LIBS)
$(B)/bin/warmcache-sidecar: LIBS := -lmicrohttpd
$(B)/bin/warmcache $(B)/bin/warmcache-prewarm: LIBS := -lyaml

# The helper exports its fopen, so that libnvrtc's calls arrive there. A compiler other than
# Debian's may link programs for a fixed address.
$(B)/bin/warmcache-nvrtc: $(HELPER)
	$(link)
	$(Q)$(CC) $(ALL_LDFLAGS) -pie -Wl,--export-dynamic $^ -o $@ -ldl

$(B)/lib/libwarmcache-compiler.so: $(COMPILER) compiler/exports.map
	$(link)
	$(Q)$(CC) $(ALL_LDFLAGS) -shared -Wl,-soname,libwarmcache-compiler.so.0 \
		-Wl,--version-script=compiler/exports.map $(COMPILER) -o $@ -ldl
	$(Q)ln -sf $(@F) $@.0
# One object, its inner symbols made local: an archive that only brings the public ones.
$(B)/lib/libwarmcache-compiler.a: $(COMPILER)
	$(link)
	$(Q)$(LD) -r $^ -o $(B)/obj/warmcache-compiler.o
	$(Q)objcopy --localize-hidden $(B)/obj/warmcache-compiler.o
	$(Q)rm -f $@ && $(AR) rcs $@ $(B)/obj/warmcache-compiler.o

# The drop-in: of each major the union of the names of its releases, in the version node that
# clients of it are linked against.
DROPINS := $(B)/obj/dropin/12.o $(B)/obj/dropin/13.o
$(DROPINS): $(B)/obj/dropin/%.o: compiler/dropin/dropin.c Makefile VERSION
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -DDROPIN_MAJOR=$* -MMD -MP -c $< -o $@
$(B)/obj/dropin/%.map: compiler/dropin/names.h
	@mkdir -p $(@D)
	$(Q)awk -F '[(,)]' -v m=$* 'BEGIN { printf "libnvrtc.so.%d {\nglobal:\n", m } \
		/^\tX\(/ && $$3 <= m && m <= $$4 { print $$2 ";" } \
		END { print "local: *;\n};" }' $< > $@
$(B)/lib/nvrtc/libnvrtc.so.%: $(B)/obj/dropin/%.o $(B)/obj/dropin/%.map $(COMPILER)
	$(link)
	$(Q)$(CC) $(ALL_LDFLAGS) -shared -Wl,-soname,$(@F) -Wl,--version-script=$(word 2,$^) \
		$(filter %.o,$^) -o $@ -ldl

$(B)/examples/%: compiler/examples/%.c $(B)/lib/libwarmcache-compiler.so $(B)/bin/warmcache-nvrtc
	$(link)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) $< -o $@ -L$(B)/lib -lwarmcache-compiler \
		'-Wl,-rpath,$$ORIGIN/../lib'

$(B)/examples/%: compiler/examples/%.cpp $(B)/lib/libwarmcache-compiler.so $(B)/bin/warmcache-nvrtc
	$(link)
	$(Q)$(CXX) -std=c++17 -Icompiler/include -Wall -Wextra $(CFLAGS) $< -o $@ -L$(B)/lib \
		-lwarmcache-compiler '-Wl,-rpath,$$ORIGIN/../lib' $(if $(SAN),-fsanitize=$(SAN))

# ---- tests ----

TEST_OBJECTS := $(call objects,tests/support)
$(B)/tests/test_%: $(B)/obj/tests/unit/test_%.o $(TEST_OBJECTS) $(SYNC) $(filter-out $(BASE) $(KERNEL),$(COMPILER))
	$(link)
	$(Q)$(CC) $(ALL_LDFLAGS) $^ -o $@ -lcmocka $(SYNC_LIBS) $(LIBS) -ldl
SIDECAR_TESTS := $(addprefix $(B)/tests/test_,holder listen metrics watch)
$(SIDECAR_TESTS): $(filter-out %/sidecar.o,$(call objects,sidecar))
$(SIDECAR_TESTS): LIBS := -lmicrohttpd
KUBE_TESTS := $(addprefix $(B)/tests/test_,$(notdir $(basename $(wildcard lib/kube/*.c))))
$(KUBE_TESTS): $(KUBE)
$(KUBE_TESTS): LIBS := -lyaml
$(B)/tests/test_dropin: $(B)/obj/dropin/13.o
$(B)/tests/fuzz_%: $(B)/obj/tests/fuzz/fuzz_%.o $(if $(FUZZER),,$(B)/obj/tests/fuzz/replay.o) $(SYNC)
	$(link)
	$(Q)$(CC) $(ALL_LDFLAGS) $^ -o $@ $(if $(FUZZER),-fsanitize=fuzzer) $(SYNC_LIBS) $(LIBS)
$(B)/tests/fuzz_yaml: $(KUBE)
$(B)/tests/fuzz_yaml: LIBS := -lyaml
$(B)/tests/libfault.so: tests/fault/fault.c
	$(link)
	$(Q)$(CC) -std=gnu11 -D_GNU_SOURCE -O2 -g -fPIC -shared $(WARNINGS) $< -o $@ -ldl

.PHONY: setup test check-unit check-sanitizers check-integration
setup:
	$(Q)scripts/setup

# Everything that a change must pass, but for the style (`make lint`).
test: setup
	$(Q)scripts/test

tests: all $(UNIT) $(FUZZ) $(B)/tests/libfault.so $(EXAMPLES)
.PHONY: tests

# lib/kube from the command line, for tests/e2e/test_client.py.
$(B)/e2e/kubecall: $(B)/obj/tests/e2e/kubecall.o $(BASE) $(KUBE)
	$(link)
	$(Q)$(CC) $(ALL_LDFLAGS) $^ -o $@ -lcurl -lcrypto -ljansson -lyaml

# ---- demo, bench ----

.PHONY: demo demo-torch bench bench-stores bench-sidecar fuzz
demo:
	$(Q)scripts/setup demo
	$(Q)$(MAKE) --no-print-directory all $(B)/examples/model
	$(Q)scripts/demo
demo-torch:
	$(Q)scripts/setup demo
	$(Q)$(MAKE) --no-print-directory all
	$(Q)scripts/demo-torch
bench: setup
	$(Q)$(MAKE) --no-print-directory all $(BENCH)
	$(Q)bench/run
bench-stores: setup
	$(Q)$(MAKE) --no-print-directory all
	$(Q)bench/stores
bench-sidecar: setup
	$(Q)$(MAKE) --no-print-directory all $(B)/bench/floor
	$(Q)bench/sidecar
# It starts itself to be timed: so only with what a small program has.
$(B)/bench/kernel: $(B)/obj/bench/kernel.o $(COMPILER)
	$(link)
	$(Q)$(CC) $(ALL_LDFLAGS) $^ -o $@ -ldl
$(B)/bench/%: $(B)/obj/bench/%.o $(SYNC) $(filter-out $(BASE) $(KERNEL),$(COMPILER))
	$(link)
	$(Q)$(CC) $(ALL_LDFLAGS) $^ -o $@ $(SYNC_LIBS) -ldl
# Longer runs under clang's libFuzzer: make fuzz [FUZZ_SECONDS=60] [TARGET=fuzz_index]
fuzz:
	$(Q)scripts/fuzz

# The programs in pods of a real Kubernetes, as root: tests/e2e/cluster.
.PHONY: e2e-k8s
e2e-k8s:
	$(Q)scripts/setup e2e
	$(Q)$(MAKE) --no-print-directory all $(B)/e2e/kubecall $(B)/examples/model
	$(Q)tests/e2e/cluster test $(NAME)
# The last of them alone: torch.compile in the Cog server in pods (5 GB of torch, once).
.PHONY: e2e-torch
e2e-torch:
	$(Q)scripts/setup demo
	$(Q)scripts/setup e2e
	$(Q)$(MAKE) --no-print-directory all $(B)/examples/model
	$(Q)scripts/demo-torch install
	$(Q)tests/e2e/cluster with python3 tests/e2e/torch_pod.py

# The drop-in under real torch: a download of 5 GB, kept for the next time.
.PHONY: test-torch
test-torch:
	$(Q)scripts/setup demo
	$(Q)$(MAKE) --no-print-directory all
	$(Q)python3 tests/integration/torch_dropin.py

# A wheel and an archive for any Linux with glibc 2.28.
.PHONY: dist
dist: setup
	$(Q)scripts/dist

# One OCI image with the programs: build/image, build/warmcache-image.tar. PLATFORMS="amd64 arm64"
# for both. What NVRTC's callers need belongs into model images, and isn't in it.
.PHONY: image test-image
image:
	$(Q)scripts/setup image $(subst $(comma), ,$(PLATFORMS))
	$(Q)PLATFORMS="$(PLATFORMS)" scripts/image $(filter-out %/warmcache-nvrtc,$(PROGRAMS))
test-image: setup image
	$(Q)$(MAKE) --no-print-directory $(B)/tests/libfault.so
	$(Q)python3 tests/integration/image.py

# ---- style ----

SOURCES := $(shell find lib initcache sidecar compiler cli k8s tests bench -name '*.[ch]' -o -name '*.cpp' 2>/dev/null)
.PHONY: lint format
lint:
	$(Q)scripts/check-layers
	$(Q)clang-format --dry-run -Werror $(SOURCES)
	$(Q)shellcheck -x $$(grep -lE '^#!.*(ba)?sh' -r scripts bench tests .ci | sort)
	$(Q)scripts/tidy $(filter-out tests/%,$(filter %.c,$(SOURCES)))
format:
	$(Q)clang-format -i $(SOURCES)

# ---- install ----

.PHONY: install clean
MAN_PAGES := $(patsubst %,$(B)/man/%.1,warmcache warmcache-init warmcache-sidecar warmcache-prewarm)
$(B)/man/%.1: $(B)/bin/%
	@mkdir -p $(@D)
	$(Q)$< --print-man > $@
install: all $(MAN_PAGES)
	install -d $(addprefix $(DESTDIR)$(PREFIX)/,bin lib/pkgconfig lib/warmcache/nvrtc include/warmcache share/man/man1)
	install -m 755 $(PROGRAMS) $(DESTDIR)$(PREFIX)/bin
	ln -sf warmcache $(DESTDIR)$(PREFIX)/bin/kubectl-warmcache
	install -m 644 $(B)/lib/libwarmcache-compiler.a $(DESTDIR)$(PREFIX)/lib
	install -m 755 $(B)/lib/nvrtc/* $(DESTDIR)$(PREFIX)/lib/warmcache/nvrtc
	install -m 755 $(B)/lib/libwarmcache-compiler.so $(DESTDIR)$(PREFIX)/lib/libwarmcache-compiler.so.0
	ln -sf libwarmcache-compiler.so.0 $(DESTDIR)$(PREFIX)/lib/libwarmcache-compiler.so
	sed 's|@PREFIX@|$(PREFIX)|; s|@VERSION@|$(VERSION)|' compiler/warmcache-compiler.pc.in \
		> $(DESTDIR)$(PREFIX)/lib/pkgconfig/warmcache-compiler.pc
	install -m 644 compiler/include/warmcache/compiler.h $(DESTDIR)$(PREFIX)/include/warmcache
	install -m 644 $(MAN_PAGES) $(DESTDIR)$(PREFIX)/share/man/man1
clean:
	rm -rf $(B)/obj $(B)/bin $(B)/lib $(B)/tests $(B)/examples $(B)/bench $(B)/man $(B)/san-*

# Objects that only a chain of rules leads to are kept.
.SECONDARY:

-include $(shell find $(B)/obj -name '*.d' 2>/dev/null)
