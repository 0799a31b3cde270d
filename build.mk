# SPDX-License-Identifier: MIT
# What is built, said once. The Makefile says how.

CORE := addr assoc base carriage coords counter fill message mux noise out path probe query registry relay seal session \
  session_relay session_renew session_roam session_seal stun tickets wheel wire
IO := drive_ev drive_poll driver iface os resolve say sockaddr stream tcp tun udp
BINDINGS := addr assoc call coord core counters crypto file log loop module mux mux_trace registry relay router \
  sandbox sandbox_base sandbox_help sandbox_net sandbox_pass sandbox_state sandbox_string schema stream stun timer \
  tun udp wire
HOST := embed event host http main node supervisor
# The library has what the binary does not, and brings neither libev nor a program's own parts.
LIB_ONLY := runtime/host/stdio
NOT_LIB := runtime/host/embed runtime/host/host runtime/host/http runtime/host/main runtime/host/supervisor \
  runtime/io/drive_ev bindings/module

# Debian packages: to build, for the lab, for tests, for checks, for the soak, for what benches stand beside.
BUILD_PACKAGES := liblua5.4-dev libev-dev libmsgpack-dev libsodium-dev libc-ares-dev libcurl4-openssl-dev lua-dkjson binutils
LAB_PACKAGES := nftables iproute2 procps
TEST_PACKAGES := lua5.4 lua-busted lua-check libcmocka-dev clang libclang-rt-14-dev clang-format \
  python3-msgpack python3-cryptography teeworlds-server golang-github-flynn-noise-dev pkg-config g++ luajit luarocks \
  coturn
LINT_PACKAGES := gcc-mingw-w64-x86-64
BENCH_PACKAGES := coturn libnice-dev pkg-config
SOAK_PACKAGES := valgrind $(BENCH_PACKAGES)

# Lua from its static library, whole, so that C modules a script loads find every symbol of it.
LUA_INC := -I/usr/include/lua5.4
LUA_LIB := -Wl,--whole-archive -l:liblua5.4.a -Wl,--no-whole-archive -lm -ldl
CORE_LIBS := -lsodium
IO_LIBS := -lev -lcares
BINDINGS_LIBS := -lmsgpackc

# Embedded in the binary as text. dkjson (MIT) comes from its Debian package.
DKJSON := /usr/share/lua/5.4/dkjson.lua
SCRIPTS := $(sort $(shell find scripts/bodkin -name '*.lua'))
LIB_SCRIPTS := $(filter-out $(addsuffix /%,$(addprefix scripts/bodkin/,cli lab policies servers sim tunnel)),$(SCRIPTS))

C_SPECS := $(wildcard spec/core/test_*.c spec/io/test_*.c spec/bindings/test_*.c spec/host/test_*.c)
FUZZERS := $(wildcard spec/fuzz/fuzz_*.c)
