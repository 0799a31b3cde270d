# SPDX-License-Identifier: MIT
# One Makefile, not recursive. `make help` says what there is. File lists stand in build.mk.

BUILD ?= build
PREFIX ?= /usr/local
CC := gcc
CLANG ?= clang
MAKEFLAGS += --no-builtin-rules
# As many jobs as there are processors, unless somebody says otherwise.
ifeq ($(filter -j%,$(MAKEFLAGS)),)
  MAKEFLAGS += -j$(shell nproc)
endif
.SUFFIXES:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := all

include build.mk

# V=1 shows the commands.
ifndef V
  quiet = @echo '  $1' $(patsubst $(BUILD)/%,%,$@) &&
endif

CORE_SRC := $(CORE:%=runtime/core/%)
IO_SRC := $(IO:%=runtime/io/%)
BINDINGS_SRC := $(BINDINGS:%=bindings/%)
HOST_SRC := $(HOST:%=runtime/host/%)
strays := $(filter-out $(CORE_SRC) $(IO_SRC) $(BINDINGS_SRC) $(HOST_SRC) $(LIB_ONLY),$(basename \
  $(wildcard runtime/*/*.c bindings/*.c)))
$(if $(strays),$(error in no list of build.mk: $(strays:=.c)))

WARN := -Wall -Wextra -Werror
CFLAGS := -O2 -g
BASE := -std=c11 -D_GNU_SOURCE -fPIC -fvisibility=hidden $(WARN) -Iruntime -Ibindings $(LUA_INC) -I$(BUILD)/gen
SAN := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer

release_CC := $(CC)
release_FLAGS := -fstack-protector-strong
asan_CC := $(CC)
asan_FLAGS := $(SAN)
fuzz_CC := $(CLANG)
# Without the tracing of comparisons, which costs a third of the speed: no number here is longer than a byte or two.
fuzz_FLAGS := -fsanitize=fuzzer-no-link -fno-sanitize-coverage=trace-cmp $(SAN)
clang_CC := $(CLANG)
clang_FLAGS :=

# $(call objects,variant,sources)
objects = $(addprefix $(BUILD)/$1/,$(addsuffix .o,$2))

define variant
$(BUILD)/$1/%.o: %.c | packages
	@mkdir -p $$(@D)
	$$(call quiet,CC) $$($1_CC) $$(BASE) $$(CFLAGS) $$($1_FLAGS) -MMD -MP -c $$< -o $$@
$(BUILD)/$1/core.a: $(call objects,$1,$(CORE_SRC))
$(BUILD)/$1/io.a: $(call objects,$1,$(IO_SRC))
$(BUILD)/$1/bindings.a: $(call objects,$1,$(BINDINGS_SRC))
$(BUILD)/$1/core.a $(BUILD)/$1/io.a $(BUILD)/$1/bindings.a:
	@rm -f $$@
	@ar rcs $$@ $$^
$(BUILD)/$1/runtime/host/embed.o: $(BUILD)/gen/embed.inc $(SCRIPTS) $(DKJSON)
$(BUILD)/$1/bodkin: $(call objects,$1,$(CORE_SRC) $(IO_SRC) $(BINDINGS_SRC) $(HOST_SRC))
	$$(call quiet,LD) $$($1_CC) $$($1_FLAGS) -Wl,-E -o $$@ $$^ $$(LUA_LIB) $$(BINDINGS_LIBS) $$(IO_LIBS) $$(CORE_LIBS)
$(BUILD)/$1/lua/bodkin/core.so: $(call objects,$1,$(CORE_SRC) $(IO_SRC) $(BINDINGS_SRC))
	@mkdir -p $$(@D)
	$$(call quiet,LD) $$($1_CC) $$($1_FLAGS) -shared -o $$@ $$^ $$(BINDINGS_LIBS) $$(IO_LIBS) $$(CORE_LIBS)
endef
$(foreach v,release asan fuzz clang,$(eval $(call variant,$v)))
-include $(wildcard $(BUILD)/*/*/*.d $(BUILD)/*/*/*/*.d)

$(DKJSON): | packages ;
# Rewritten only when the list of scripts changes.
$(BUILD)/gen/embed.inc: EMBED = $(SCRIPTS)
$(BUILD)/gen/lib/embed.inc: EMBED = $(LIB_SCRIPTS)
$(BUILD)/gen/embed.inc $(BUILD)/gen/lib/embed.inc: FORCE
	@mkdir -p $(@D)
	@{ n=0; for f in $(EMBED); do echo "SCRIPT($$n, \"$${f#scripts/}\", \"$$f\")"; n=$$((n+1)); done; \
	  echo "SCRIPT($$n, \"dkjson.lua\", \"$(DKJSON)\")"; } > $@.new
	@cmp -s $@.new $@ && rm $@.new || mv $@.new $@

# --- the library: Lua inside and hidden, everything else an ordinary dependency (so that libsodium's and c-ares'
# security updates reach it). Debian's liblua5.4.a is PIE, not PIC: what stands in the way are its direct references to
# stdin, stdout and stderr, which get names of our own.
LIB_SRC := $(filter-out $(NOT_LIB),$(CORE_SRC) $(IO_SRC) $(BINDINGS_SRC) $(HOST_SRC)) $(LIB_ONLY)
LIB_OBJ := $(call objects,release,$(LIB_SRC)) $(BUILD)/gen/lib/embed.o
LIB_LINK := -lm $(BINDINGS_LIBS) $(filter-out -lev,$(IO_LIBS)) $(CORE_LIBS)
LIB_NAME := libbodkin.so.0
$(BUILD)/gen/lib/embed.o: runtime/host/embed.c $(BUILD)/gen/lib/embed.inc $(SCRIPTS) $(DKJSON)
	$(call quiet,CC) $(CC) $(filter-out -I$(BUILD)/gen,$(BASE)) -I$(BUILD)/gen/lib $(CFLAGS) $(release_FLAGS) -c $< -o $@
$(BUILD)/gen/lib/lua.a: | packages
	@mkdir -p $(@D)
	@objcopy $(foreach f,stdin stdout stderr,--redefine-sym $f=bdk_$f) $$($(CC) -print-file-name=liblua5.4.a) $@
$(BUILD)/gen/lib/names: runtime/host/bodkin.h
	@mkdir -p $(@D)
	@grep -o '\<bdk_[a-z_]*(' $< | tr -d '(' | sort -u >$@
	@{ echo '{ global:'; sed 's/$$/;/' $@; echo 'local: *; };'; } >$@.map
$(BUILD)/release/libbodkin.so: $(LIB_OBJ) $(BUILD)/gen/lib/lua.a $(BUILD)/gen/lib/names
	$(call quiet,LD) $(CC) $(release_FLAGS) -shared -Wl,-soname,$(LIB_NAME) -Wl,--version-script=$(BUILD)/gen/lib/names.map \
	  -Wl,-z,defs -o $@ $(LIB_OBJ) $(BUILD)/gen/lib/lua.a $(LIB_LINK)
$(BUILD)/release/libbodkin.a: $(LIB_OBJ) $(BUILD)/gen/lib/lua.a $(BUILD)/gen/lib/names
	$(call quiet,LD) $(CC) -r -nostdlib -o $(@:.a=.o) $(LIB_OBJ) $(BUILD)/gen/lib/lua.a
	@objcopy --keep-global-symbols=$(BUILD)/gen/lib/names $(@:.a=.o)
	@rm -f $@ && ar rcs $@ $(@:.a=.o)

# --- C specs: one binary a file, under ASan and UBSan, linked with the layers below it only
SPEC_BINS := $(patsubst %.c,$(BUILD)/asan/%,$(C_SPECS))
a = $(BUILD)/asan
spec_link = $(asan_CC) $(asan_FLAGS) $(WRAP) -o $@ $< $(filter %.a,$^)
# They refuse memory, each allocation in turn.
$(patsubst %,$(a)/spec/%/test_memory,io bindings host): WRAP := -Wl,--wrap=calloc,--wrap=realloc,--wrap=free
$(a)/spec/core/test_%: $(a)/spec/core/test_%.o $(a)/core.a
	$(call quiet,LD) $(spec_link) -lcmocka -lmsgpackc $(CORE_LIBS)
$(a)/spec/io/test_%: $(a)/spec/io/test_%.o $(a)/io.a $(a)/core.a
	$(call quiet,LD) $(spec_link) -lcmocka $(IO_LIBS) $(CORE_LIBS)
$(a)/spec/bindings/test_%: $(a)/spec/bindings/test_%.o $(a)/bindings.a $(a)/io.a $(a)/core.a
	$(call quiet,LD) $(spec_link) -lcmocka $(LUA_LIB) $(BINDINGS_LIBS) $(IO_LIBS) $(CORE_LIBS)

$(a)/spec/host/test_%: $(a)/spec/host/test_%.o $(filter-out %/main.o,$(call objects,asan,$(HOST_SRC))) $(a)/bindings.a \
  $(a)/io.a $(a)/core.a
	$(call quiet,LD) $(asan_CC) $(asan_FLAGS) $(WRAP) -o $@ $^ -lcmocka $(LUA_LIB) $(BINDINGS_LIBS) $(IO_LIBS) $(CORE_LIBS)

# The bindings on drive_poll, for the specs that know one kind of loop.
POLL_CORE := $(BUILD)/release/spec/embed/lua/bodkin/core.so
$(POLL_CORE): $(filter-out %/bindings/module.o,$(call objects,release,$(CORE_SRC) $(IO_SRC) $(BINDINGS_SRC))) \
  $(BUILD)/release/spec/embed/core_poll.o
	@mkdir -p $(@D)
	$(call quiet,LD) $(CC) -shared -o $@ $^ $(BINDINGS_LIBS) $(IO_LIBS) $(CORE_LIBS)
# For valgrind, which cannot look into ASan's.
$(BUILD)/release/spec/host/test_pairs: $(patsubst %,$(BUILD)/release/%.o,spec/host/test_pairs $(filter-out %/main,$(HOST_SRC)) \
  $(BINDINGS_SRC) $(IO_SRC) $(CORE_SRC))
	$(call quiet,LD) $(CC) -o $@ $^ -lcmocka $(LUA_LIB) $(BINDINGS_LIBS) $(IO_LIBS) $(CORE_LIBS)

FUZZ_BINS := $(patsubst %.c,$(BUILD)/fuzz/%,$(FUZZERS))
f = $(BUILD)/fuzz
comma := ,
# Of those that exchange keys, the results are remembered (spec/fuzz/dh.h).
$(patsubst %,$(f)/spec/fuzz/fuzz_%,machines mux noise seal): WRAP := $(addprefix \
  -Wl$(comma)--wrap=,crypto_scalarmult crypto_scalarmult_base bdk_rekey_first)
$(foreach s,$(wildcard spec/fuzz/*.lua),$(eval $(f)/spec/fuzz/fuzz_$(basename $(notdir $s)): $s))
$(f)/spec/fuzz/%: $(f)/spec/fuzz/%.o $(f)/runtime/host/embed.o $(f)/bindings.a $(f)/io.a $(f)/core.a
	$(call quiet,LD) $(fuzz_CC) $(fuzz_FLAGS) $(WRAP) -fsanitize=fuzzer -o $@ $(filter %.o %.a,$^) $(LUA_LIB) $(BINDINGS_LIBS) $(IO_LIBS) $(CORE_LIBS)

r = $(BUILD)/release
.SECONDARY:

# --- what one asks for
BODKIN := $(r)/bodkin
ROCK := $(r)/lua/bodkin/core.so
LIBRARY := $(r)/libbodkin.so $(r)/libbodkin.a
SUITES := lua5.4 .ci/suites.lua $(BUILD)

all: $(BODKIN) $(ROCK) $(LIBRARY)
asan: $(BUILD)/asan/bodkin
demo: all
	@$(BODKIN) run scripts/bodkin/lab/demo.lua
test: test-build
	@$(SUITES) all
test-quick: test-build
	@$(SUITES) quick
test-build: all $(r)/core.a $(r)/io.a $(r)/bindings.a $(SPEC_BINS) $(FUZZ_BINS) $(POLL_CORE) $(BUILD)/asan/bodkin \
  $(r)/bench/flood
test-%: all $(SPEC_BINS) $(FUZZ_BINS) $(POLL_CORE) $(BUILD)/asan/bodkin $(r)/bench/flood
	@$(SUITES) $*
soak: all $(r)/spec/host/test_pairs $(BUILD)/asan/bodkin $(BUILD)/asan/spec/host/test_memory $(FUZZ_BINS) $(r)/bench/flood
	@$(SUITES) soak
soak-fuzz: $(FUZZ_BINS)
	@$(SUITES) soak-fuzz
soak-matrix: all
	@$(SUITES) soak-matrix
bench-embed: all $(r)/bench/embed
	@$(r)/bench/embed $(BODKIN)
$(r)/bench/embed: $(r)/bench/embed.o $(r)/libbodkin.a
	$(call quiet,LD) $(CC) -o $@ $^ $(LIB_LINK)
bench-noise: $(r)/bench/noise
	@$(r)/bench/noise
$(r)/bench/noise: $(r)/bench/noise.o $(r)/core.a
	$(call quiet,LD) $(CC) -o $@ $^ $(CORE_LIBS)
bench-seal: all $(r)/bench/path $(r)/bench/path_plain
	@BODKIN=$(BODKIN) BENCH=$(r)/bench $(BODKIN) run bench/seal.lua
$(r)/bench/path: $(r)/bench/path.o $(r)/core.a
	$(call quiet,LD) $(CC) -o $@ $^ $(CORE_LIBS)
# The same without AEAD, to stand beside.
AEAD := crypto_aead_chacha20poly1305_ietf
$(r)/bench/path_plain: bench/path.c $(r)/core.a
	$(call quiet,LD) $(CC) $(BASE) $(CFLAGS) $(release_FLAGS) -DBENCH_PLAIN -Wl,--wrap=$(AEAD)_encrypt,--wrap=$(AEAD)_decrypt \
	  -o $@ $^ $(CORE_LIBS)
bench-maintenance: all
	@LUA_PATH='scripts/?.lua;scripts/?/init.lua;;' LUA_CPATH='$(r)/lua/?.so;;' lua5.4 bench/maintenance.lua
bench-policy: all
	@BODKIN=$(BODKIN) $(BODKIN) run bench/policy.lua
bench-match: all $(r)/bench/sweep
	@BODKIN=$(BODKIN) BENCH=$(r)/bench $(BODKIN) run bench/match.lua
	@$(BODKIN) run bench/match_net.lua
bench-server: all $(r)/bench/echo $(r)/bench/load
	@BODKIN=$(BODKIN) BENCH=$(r)/bench $(BODKIN) run bench/server.lua
bench-tunnel: all $(r)/bench/echo $(r)/bench/load
	@BODKIN=$(BODKIN) BENCH=$(r)/bench $(BODKIN) run bench/tunnel.lua
bench-relay: all $(r)/bench/relay
	@BODKIN=$(BODKIN) BENCH=$(r)/bench $(BODKIN) run bench/relay.lua
bench-flood: all $(r)/bench/flood
	@BODKIN=$(BODKIN) BENCH=$(r)/bench $(BODKIN) run bench/flood.lua
# JUICE=DIR: where libjuice is (include/juice/juice.h, libjuice.a or .so there or in lib/); its rows are then printed, too.
bench-connect: all $(r)/bench/nice $(if $(JUICE),$(r)/bench/juice)
	@BODKIN=$(BODKIN) BENCH=$(r)/bench JUICE=$(JUICE) $(BODKIN) run bench/connect.lua
$(r)/bench/echo $(r)/bench/load $(r)/bench/flood $(r)/bench/relay $(r)/bench/sweep: $(r)/bench/%: $(r)/bench/%.o
	$(call quiet,LD) $(CC) -o $@ $^
$(r)/bench/nice.o: CFLAGS += $$(pkg-config --cflags nice)
$(r)/bench/nice: $(r)/bench/nice.o $(r)/bench/signals.o
	$(call quiet,LD) $(CC) -o $@ $^ $$(pkg-config --libs nice)
$(r)/bench/juice.o: CFLAGS += -I$(JUICE)/include
$(r)/bench/juice: $(r)/bench/juice.o $(r)/bench/signals.o
	$(call quiet,LD) $(CC) -o $@ $^ -L$(JUICE) -L$(JUICE)/lib -Wl,-rpath,$(JUICE):$(JUICE)/lib -ljuice -pthread
bench: all
	@BODKIN=$(BODKIN) $(BODKIN) run bench/figures.lua
nat-table: all
	@$(SUITES) nat-table
fuzz: $(FUZZ_BINS)
	@$(SUITES) fuzz 60
layers: all $(r)/core.a $(r)/io.a $(r)/bindings.a
	@lua5.4 .ci/layers.lua $(BUILD)/release
# The operating system stays in runtime/io: the rest of C that engines need compiles for Windows, too. Of /usr/include
# the cross compiler gets to see only the headers that are not glibc's.
MINGW := x86_64-w64-mingw32-gcc
$(BUILD)/gen/mingw/sodium.h: | packages
	@mkdir -p $(@D)
	@cp -r /usr/include/sodium /usr/include/lua5.4/* /usr/include/*/lua5.4-deb-multiarch.h $(@D)
	@cp /usr/include/sodium.h $@
$(BUILD)/mingw/%.o: %.c $(BUILD)/gen/mingw/sodium.h $(BUILD)/gen/embed.inc
	@mkdir -p $(@D)
	$(call quiet,CC) $(MINGW) -std=c11 -D_GNU_SOURCE $(WARN) -O2 -Iruntime -Ibindings -isystem $(BUILD)/gen/mingw -I$(BUILD)/gen \
	  -MMD -MP -c $< -o $@

lint: layers $(call objects,clang,$(CORE_SRC) $(IO_SRC) $(BINDINGS_SRC) $(HOST_SRC)) \
  $(call objects,mingw,$(CORE_SRC) $(filter-out %/main %/supervisor %/http,$(HOST_SRC)))
	@luacheck -q scripts spec examples bench .ci
	@clang-format --dry-run -Werror $$(git ls-files '*.c' '*.h')
docs: all
	@LUA_PATH='scripts/?.lua;scripts/?/init.lua;;' LUA_CPATH='$(r)/lua/?.so;;' lua5.4 docs/tables.lua
format:
	clang-format -i $$(git ls-files '*.c' '*.h')
clean:
	rm -rf $(BUILD)
VERSION := $(shell sed -n 's/^\#define BDK_VERSION "\(.*\)"/\1/p' runtime/core/base.h)
AT := $(DESTDIR)$(PREFIX)
install: all
	install -Dm755 $(BODKIN) $(AT)/bin/bodkin
	install -Dm644 docs/man/bodkin.1 $(AT)/share/man/man1/bodkin.1
	install -Dm644 runtime/host/bodkin.h $(AT)/include/bodkin.h
	install -Dm644 $(r)/libbodkin.a $(AT)/lib/libbodkin.a
	install -Dm755 $(r)/libbodkin.so $(AT)/lib/$(LIB_NAME)
	ln -sf $(LIB_NAME) $(AT)/lib/libbodkin.so
	@mkdir -p $(AT)/lib/pkgconfig
	sed 's|@PREFIX@|$(PREFIX)|; s|@VERSION@|$(VERSION)|' bodkin.pc.in >$(AT)/lib/pkgconfig/bodkin.pc
	@case '$(AT)' in /usr|/usr/local) ldconfig 2>/dev/null || echo 'next: run ldconfig as root';; esac
uninstall:
	rm -f $(AT)/bin/bodkin $(AT)/share/man/man1/bodkin.1 $(AT)/include/bodkin.h $(AT)/lib/pkgconfig/bodkin.pc
	rm -f $(AT)/lib/libbodkin.a $(AT)/lib/libbodkin.so $(AT)/lib/$(LIB_NAME)
# For luarocks: the module and the scripts, Lua itself left to the interpreter.
rock: $(ROCK)
install-rock: rock
	install -Dm755 $(ROCK) $(LIBDIR)/bodkin/core.so
	cd scripts && find bodkin -name '*.lua' -exec install -Dm644 {} $(LUADIR)/{} ';'

# `demo`, `test…` and `deps` install what is missing; anything else only says so.
bench_goals := $(filter bench-server bench-connect bench-relay,$(MAKECMDGOALS))
lab_goals := $(filter demo bench bench-flood nat-table,$(MAKECMDGOALS))$(bench_goals)
test_goals := $(filter deps nat-table soak soak-fuzz soak-matrix fuzz lint layers format test test-%,$(MAKECMDGOALS))
deps: packages
packages:
	@.ci/packages $(if $(lab_goals)$(test_goals),install,check) $(BUILD_PACKAGES) \
	  $(if $(lab_goals)$(test_goals),$(LAB_PACKAGES)) $(if $(test_goals),$(TEST_PACKAGES)) \
	  $(if $(filter deps lint,$(MAKECMDGOALS)),$(LINT_PACKAGES)) $(if $(filter deps soak,$(MAKECMDGOALS)),$(SOAK_PACKAGES)) \
  $(if $(bench_goals),$(BENCH_PACKAGES))
FORCE:

help:
	@echo 'all demo test test-quick test-DIR soak soak-fuzz soak-matrix nat-table fuzz lint layers asan format clean'
	@echo 'install uninstall deps bench bench-embed bench-server bench-connect bench-noise bench-seal bench-policy'
	@echo 'bench-match bench-maintenance bench-tunnel bench-relay bench-flood'

.PHONY: all asan docs demo test test-quick test-build soak soak-fuzz soak-matrix bench bench-embed bench-server \
  bench-connect bench-noise bench-seal bench-policy bench-match bench-maintenance bench-tunnel bench-relay bench-flood \
  nat-table fuzz layers lint format clean install uninstall rock install-rock deps packages help FORCE
