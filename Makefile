# weft - build.  make | deps | demo | test | check | model | soak | bench | shots | examples | docs | install | uninstall | clean
#
#   BUILD=release|debug     debug: -O1 and the checks of locks and structures (-DWEFT_CHECKS)
#   SAN=address|thread|undefined   address brings undefined with it
#   CC=clang   CROSS=aarch64-linux-gnu-   WERROR=1 (also by CI=true)   V=1 shows the commands
#   B=dir      output, by default build/<compiler>-<build>[-<san>];  T=words: only tests whose file name holds one of them
#   PREFIX=/usr/local  DESTDIR=  LIBDIR=  EXTRA_CFLAGS=
#
# Nothing is listed here: a new file is found by its place.
#   src/*/*.c, src/os/arch/<arch>*.S   the library;  src/debug/serve/*.c   libweft-debug, which uses the library as a program does;
#   src/debug/cmd/*.c  the command weft-doctor
#   tests/*.c, *.cc  a test program each (with tests/support/*.c);  tests/*.sh  a test script each; what these share: tests/support/*.sh
#   tests/prog/*.c   programs, tests/mod/*.c, *.cc  shared modules, that tests run and load;  tests/host/*.c, *.cc  hosts, run by tests/host_*.c;
#   tests/fuzz/*.c  a fuzz target (tools/fuzz.sh);  tests/soak/*.[ch]  one program, a long random run against the collector;
#   tests/model/*.pml  models of protocols (make model)
#   examples/*.c, examples/bugs/*.c  a program each;  examples/<dir>/*.c  one program <dir>;  bench/: see bench/run.sh
#
# How the library is made: all objects and the parts of jemalloc's static archive that we use become one object
# (ld -r), in which everything but weft_* is made local. So neither libweft.a nor libweft.so defines a malloc, or anything else
# a host could collide with. jemalloc's own public names are prefixed with jem_ first: "malloc" written in weft is the host's.

BUILD ?= release
SAN ?=
PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
DESTDIR ?=
CROSS ?=
ifeq ($(origin CC),default)
CC := $(CROSS)gcc
endif
ifeq ($(origin CXX),default)
CXX := $(if $(findstring clang,$(CC)),$(subst clang,clang++,$(CC)),$(if $(findstring gcc,$(CC)),$(subst gcc,g++,$(CC)),$(CROSS)c++))
endif
LD := $(CROSS)ld
OBJCOPY := $(CROSS)objcopy
ARCH := $(firstword $(subst -, ,$(shell $(CC) -dumpmachine)))
B ?= build/$(if $(CROSS),$(ARCH)-)$(notdir $(firstword $(CC)))-$(BUILD)$(if $(SAN),-$(SAN))
override B := $(abspath $(B))
ifneq ($(words $(CURDIR))-$(filter $(CURDIR),$(B)),1-)
$(error weft needs a path without spaces, and B=, where it is built, must be another folder)
endif
Q := $(if $(V),,@)
comma := ,
JOBS = $(if $(findstring -j,$(MAKEFLAGS)),,-j$(shell nproc))
say = $(if $(V),,@printf '  %-8s%s\n' $(1) '$(patsubst $(B)/%,%,$(2))')

VERSION := $(shell sed -n 's/^.define WEFT_VERSION "\(.*\)"/\1/p' include/weft/base.h)
MAJOR := $(firstword $(subst ., ,$(VERSION)))

# Libraries of another architecture that lie in a tree of their own (tools/aarch64.sh), and what runs its programs.
SYSROOT ?=
EMULATOR ?=
SYSROOT_CFLAGS := $(if $(SYSROOT),-isystem $(SYSROOT)/usr/include -isystem $(SYSROOT)/usr/include/$(ARCH)-linux-gnu)
SYSROOT_LIBS := $(if $(SYSROOT),-L$(SYSROOT)/usr/lib/$(ARCH)-linux-gnu -Wl$(comma)-rpath-link$(comma)$(SYSROOT)/usr/lib/$(ARCH)-linux-gnu \
    -Wl$(comma)-rpath-link$(comma)$(SYSROOT)/lib/$(ARCH)-linux-gnu)

# libweft-debug: SERVE= leaves it out. Cross builds have no libmicrohttpd to link with.
SERVE ?= $(if $(CROSS),,1)
SERVE_LIBS := $(if $(SERVE),-lmicrohttpd -lgnutls)

# ---- flags ----------------------------------------------------------------------------------------------
# Frame pointers and unwind tables stay: profilers walk them. No strict aliasing: the collector reads every object as words.
# No sibling calls: the public function that a fiber waits in is to be found on its stack.
WARN := -Wall -Wextra $(if $(filter true,$(CI))$(WERROR),-Werror)
MODE := $(if $(filter debug,$(BUILD)),-O1 -DWEFT_CHECKS,-O2)
# gcc warns of every fence under TSan, which does not see them.
SANITIZE := $(if $(SAN),-fsanitize=$(if $(filter address,$(SAN)),address$(comma)undefined,$(SAN)) -fno-sanitize-recover=undefined) \
    $(if $(filter thread,$(SAN)),$(if $(findstring clang,$(CC)),,-Wno-tsan))
COMMON := -D_GNU_SOURCE -g $(MODE) $(SANITIZE) $(WARN) -pthread -Iinclude $(SYSROOT_CFLAGS) -MMD -MP $(EXTRA_CFLAGS)
LIB_CFLAGS := -std=gnu11 $(COMMON) -Isrc -fPIC -fvisibility=hidden -fno-omit-frame-pointer \
    -fasynchronous-unwind-tables -fno-strict-aliasing -fno-optimize-sibling-calls
PROG_CFLAGS := -std=gnu11 $(COMMON) -fno-omit-frame-pointer
TEST_DEFS := -Isrc -Itests -DTEST_BUILD='"$(B)"' -DTEST_SRC='"$(CURDIR)"'
SYSLIBS := -ldl -pthread
LDFLAGS_ALL := $(SANITIZE) $(SYSROOT_LIBS) -Wl,--as-needed $(LDFLAGS)

# ---- the library ------------------------------------------------------------------------------------------
SRC := $(wildcard src/*/*.c src/os/arch/$(ARCH)*.S src/os/arch/$(ARCH)*.c)
# What a program that idles does not run comes last in the library, behind jemalloc: the kernel maps sixteen pages around each that is touched.
# Last of all src/debug, but for what of the doctor runs in each program.
LATE := $(filter src/prof/% src/trace/% $(addsuffix .c,$(addprefix src/gc/,alloc finalize mark poison sample special verify weak) $(addprefix src/sched/,chan cond ctx \
    dial fork guard io labels leaked lot metrics mutex once pin pool rwmutex schedtrace select sema usertimer waitgroup)),$(SRC)) \
    $(filter-out $(addprefix src/debug/,doctor.c w05_used_after.c w12_procs.c w15_held.c),$(filter src/debug/%,$(SRC)))
OBJ := $(patsubst %,$(B)/%.o,$(basename $(filter-out $(LATE),$(SRC))))
LATE_OBJ := $(patsubst %,$(B)/%.o,$(basename $(LATE)))
SERVE_SRC := $(if $(SERVE),$(wildcard src/debug/serve/*.c))
PAGE_OBJ := $(if $(SERVE),$(B)/src/debug/serve/page/files.o)
SERVE_OBJ := $(SERVE_SRC:%.c=$(B)/%.o) $(PAGE_OBJ)
JEMALLOC ?= $(shell $(CC) -print-file-name=libjemalloc_pic.a)
JEM_API := mallocx rallocx dallocx sallocx mallctl mallctlnametomib mallctlbymib malloc_message
JEM_DIVERT := mmap munmap secure_getenv readlink sbrk dlsym _Unwind_Backtrace _Unwind_GetIP exp log round \
    $(if $(filter thread,$(SAN)),$(addprefix pthread_mutex_,init lock trylock unlock))

.PHONY: all lib docs deps have-deps demo test run-tests tests check model soak bench shots examples scheme-boehm scheme-store install uninstall clean FORCE
.SECONDARY:
.DELETE_ON_ERROR:
all: lib
lib: $(B)/libweft.a $(B)/libweft.so $(B)/weft.pc $(if $(SERVE),$(B)/libweft-debug.a $(B)/libweft-debug.so $(B)/weft-debug.pc) $(B)/weft-doctor

# A file that is written anew when its text has changed: other flags, another compiler, one source less.
define STAMP
$(B)/$(1): FORCE
	@mkdir -p $$(@D); printf '%s\n' '$(subst ','\'',$(2))' | cmp -s - $$@ || printf '%s\n' '$(subst ','\'',$(2))' > $$@
endef
# B is one of them: the dependencies that were written down name objects by their path, and mean nothing once the folder has been moved or copied.
$(eval $(call STAMP,flags,$(B) $(CC) $(LIB_CFLAGS) $(PROG_CFLAGS) $(CFLAGS) $(CXX) $(CXXFLAGS) $(LDFLAGS_ALL)))
$(eval $(call STAMP,sources,$(SRC)))
$(eval $(call STAMP,serve-sources,$(SERVE_SRC)))
$(eval $(call STAMP,jemalloc,$(shell stat -L -c '%n %s %Y' $(JEMALLOC) 2>&1)))

$(B)/%.o: %.c $(B)/flags
	$(call say,CC,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(LIB_CFLAGS) $(CFLAGS) -c $< -o $@
$(B)/%.o: %.S $(B)/flags
	$(call say,AS,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(LIB_CFLAGS) $(CFLAGS) -c $< -o $@

# jemalloc's members we need, public names prefixed, its 2 MiB of .bss between two symbols for gc/roots.c (no roots there); what it should not call is diverted to base/offheap.c.
$(B)/jemalloc.o: Makefile $(B)/jemalloc
	$(call say,JEM,$@)
	@[ -e '$(JEMALLOC)' ] || { echo 'libjemalloc_pic.a is missing: make deps'; exit 1; }
	$(Q)$(LD) -r $(addprefix -u ,$(JEM_API)) -o $@.tmp $(JEMALLOC)
	$(Q)$(CROSS)nm -g --defined-only $@.tmp | awk '$$3 !~ /^je_/ { print $$3, "jem_" $$3 }' > $@.names
	$(Q)$(OBJCOPY) --redefine-syms=$@.names $(foreach f,$(JEM_DIVERT),--redefine-sym $f=off_no_$f) \
	    $(foreach s,text bss,--add-symbol off_jem_$s=.$s:0,global --add-symbol \
	    off_jem_$s_end=.$s:$$($(CROSS)size -A $@.tmp | awk '$$1 == ".$s" { print $$2 }'),global) $@.tmp $@
	@rm -f $@.tmp $@.names

# all.o is for tests, which look inside; weft.o is the library.
$(B)/all.o: $(B)/src/base/text_first.o $(OBJ) $(B)/jemalloc.o $(LATE_OBJ) $(B)/src/base/text_last.o $(B)/sources
	$(Q)$(LD) -r -o $@ $(filter %.o,$^)
$(B)/weft.o: $(B)/all.o
$(B)/weft-debug.o: $(B)/serve.o
$(B)/weft.o $(B)/weft-debug.o:
	$(Q)$(OBJCOPY) --wildcard --keep-global-symbol='weft_*' $< $@
$(B)/lib%.a: $(B)/%.o
	$(call say,AR,$@)
	@rm -f $@
	$(Q)$(AR) rcs $@ $<
# The member of libc that holds pthread_atfork, which is called at the start, comes first: else it lies behind what comes last on purpose.
NONSHARED = $(wildcard $(shell $(CC) -print-file-name=libc_nonshared.a))
# Bsymbolic-functions: the one variable that is exported, weft_card_table_, may be the program's copy.
# nodelete: threads of the host may hold thread-local data of ours when they end, after a dlclose.
SO_FLAGS = -Wl,-soname,$(@F) -Wl,--version-script=src/weft.map -Wl,-z,now -Wl,-z,relro -Wl,-Bsymbolic-functions -Wl,-z,nodelete \
    $(if $(SAN),,-Wl$(comma)-z$(comma)defs) $(LDFLAGS_ALL)
$(B)/libweft.so.$(MAJOR): $(B)/weft.o src/weft.map
	$(call say,LINK,$@)
	$(Q)$(CC) -shared -o $@ -Wl,-u,pthread_atfork $(NONSHARED) $< $(SO_FLAGS) $(SYSLIBS)
$(B)/lib%.so: $(B)/lib%.so.$(MAJOR)
	$(Q)ln -sf $(<F) $@
$(B)/weft.pc: Makefile include/weft/base.h
	@mkdir -p $(@D)
	$(Q)printf '%s\n' 'prefix=$(PREFIX)' 'libdir=$(patsubst $(PREFIX)/%,$${prefix}/%,$(LIBDIR))' 'includedir=$${prefix}/include' '' \
	    'Name: weft' 'Description: managed runtime for C: fibers and garbage collection' 'Version: $(VERSION)' \
	    'Cflags: -I$${includedir}' 'Libs: -L$${libdir} -lweft' 'Libs.private: $(SYSLIBS)' > $@

# ---- libweft-debug: the same way, but its own ------------------------------------------------------------------
# The live page's files as C (src/debug/serve/page.c).
PAGE_FILES := $(wildcard src/debug/serve/page/dist/*)
$(B)/src/debug/serve/page/files.c: src/debug/serve/page/embed.sh $(PAGE_FILES)
	$(call say,PAGE,$@)
	@mkdir -p $(@D)
	$(Q)$< $(PAGE_FILES) > $@
$(B)/src/debug/serve/page/files.o: $(B)/src/debug/serve/page/files.c $(B)/flags
	$(Q)$(CC) $(LIB_CFLAGS) $(CFLAGS) -c $< -o $@
$(B)/serve.o: $(SERVE_OBJ) $(B)/serve-sources
	$(Q)$(LD) -r -o $@ $(filter %.o,$^)
$(B)/libweft-debug.so.$(MAJOR): $(B)/weft-debug.o $(B)/libweft.so src/weft.map
	$(call say,LINK,$@)
	$(Q)$(CC) -shared -o $@ $< $(SO_FLAGS) -L$(B) -lweft $(SERVE_LIBS) -pthread
$(B)/weft-debug.pc: Makefile include/weft/base.h
	@mkdir -p $(@D)
	$(Q)printf '%s\n' 'prefix=$(PREFIX)' 'libdir=$(patsubst $(PREFIX)/%,$${prefix}/%,$(LIBDIR))' '' \
	    'Name: weft-debug' 'Description: the debug endpoint of weft, over HTTP' 'Version: $(VERSION)' 'Requires: weft' \
	    'Libs: -L$${libdir} -lweft-debug' 'Libs.private: $(SERVE_LIBS) -pthread' > $@

# The command is a program of its own: nothing of the library but the table of a trace's events (cmd/format.c).
DOCTOR := $(patsubst %.c,$(B)/%.o,$(wildcard src/debug/cmd/*.c))
$(B)/weft-doctor: $(DOCTOR)
	$(call say,PROG,$@)
	$(Q)$(CC) -o $@ $^ $(LDFLAGS_ALL) -lz

# ---- reference, install -----------------------------------------------------------------------------------------
# One page of HTML, and manual pages, from the public headers: docs.awk says how they are to be written.
HEADERS := $(patsubst %,include/weft/%.h,base sched gc sync io mem metrics prof trace debug)
HEADERS += $(filter-out $(HEADERS),$(wildcard include/weft/*.h))
docs: $(B)/weft.html
$(B)/weft.html: tools/docs.awk $(HEADERS)
	$(call say,DOCS,$@)
	@rm -rf $(B)/man; mkdir -p $(B)/man
	$(Q)awk -v form=man -v version=$(VERSION) -v dir=$(B)/man -f tools/docs.awk $(HEADERS)
	$(Q)awk -v form=html -v version=$(VERSION) -f tools/docs.awk $(HEADERS) > $@

INSTALL_ENV = B='$(B)' PREFIX='$(PREFIX)' LIBDIR='$(LIBDIR)' DESTDIR='$(DESTDIR)' VERSION='$(VERSION)' LIBRARIES='weft$(if $(SERVE), weft-debug)'
install: lib docs
	@$(INSTALL_ENV) tools/install.sh install
uninstall:
	@$(INSTALL_ENV) tools/install.sh uninstall

# ---- tests --------------------------------------------------------------------------------------------------
# Criterion cannot run under TSan or emulation: there, tests/mini stands in.
MINI ?= $(if $(CROSS)$(filter thread,$(SAN)),1)
TEST_DEFS += $(if $(MINI),-Itests/mini)
SUPPORT := $(patsubst tests/support/%.c,$(B)/tests/support/%.o,$(wildcard tests/support/*.c))
TEST_NAMES := $(filter-out $(if $(SERVE),,serve_%),$(basename $(notdir $(wildcard tests/*.c tests/*.cc))))
ALL_TESTS := $(addprefix $(B)/tests/,$(TEST_NAMES)) $(if $(EMULATOR),,$(wildcard tests/*.sh))
pick = $(if $(T),$(foreach t,$(1),$(if $(strip $(foreach w,$(T),$(findstring $(w),$(notdir $(t))))),$(t))),$(1))
TESTS = $(call pick,$(ALL_TESTS))
GO_TOOLS := $(addprefix $(CURDIR)/build/go/,pprof trace)
GO_SERVED := $(CURDIR)/build/go/served
TEST_EXTRA := $(patsubst tests/prog/%.c,$(B)/tests/prog/%,$(filter-out $(if $(SERVE),,tests/prog/serve_%),$(wildcard tests/prog/*.c))) $(B)/tests/fuzz/replay \
    $(B)/tests/soak/soak $(addprefix $(B)/,$(basename $(wildcard tests/host/*.c tests/host/*.cc))) \
    $(addprefix $(B)/,$(addsuffix .so,$(basename $(wildcard tests/mod/*.c tests/mod/*.cc)))) $(if $(shell command -v go),$(GO_TOOLS) $(GO_SERVED))

$(B)/tests/%.o: tests/%.c $(B)/flags
	$(call say,CC,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(PROG_CFLAGS) $(TEST_DEFS) $(CFLAGS) -c $< -o $@
$(B)/tests/%.o: tests/%.cc $(B)/flags
	$(call say,CXX,$@)
	@mkdir -p $(@D)
	$(Q)$(CXX) -std=gnu++17 $(COMMON) $(TEST_DEFS) $(CXXFLAGS) -c $< -o $@
$(B)/tests/support.a: $(SUPPORT)
	@rm -f $@
	$(Q)$(AR) rcs $@ $^
# Tests and programs serve_* have the endpoint, too.
SERVE_TESTS := $(filter serve_%,$(TEST_NAMES))
SERVE_PROGS := $(addprefix $(B)/tests/prog/,$(notdir $(basename $(wildcard tests/prog/serve_*.c))))
$(addprefix $(B)/tests/,$(SERVE_TESTS)): $(B)/serve.o
$(SERVE_PROGS): $(B)/libweft-debug.a
ENDPOINT = $(if $(filter %/serve.o %-debug.a,$^),$(SERVE_LIBS))
# It steps through what runs, and the loader, when it binds a function at the first call, cannot be walked at each instruction.
$(B)/tests/walk_stack: private override LDFLAGS_ALL += -Wl,-z,now
$(B)/tests/%: $(B)/tests/%.o $(B)/tests/support.a $(B)/all.o $(if $(MINI),$(B)/tests/mini/mini.o)
	$(call say,LINK,$@)
	$(Q)$(if $(wildcard tests/$*.cc),$(CXX),$(CC)) -o $@ $^ -Wl,-u,test_limit $(LDFLAGS_ALL) $(if $(MINI),-lm,-lcriterion) $(ENDPOINT) -lz $(SYSLIBS)
$(B)/tests/prog/%: tests/prog/%.c $(B)/libweft.a $(B)/flags
	$(call say,PROG,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(PROG_CFLAGS) $(TEST_DEFS) $(CFLAGS) $< -o $@ -rdynamic $(filter %-debug.a,$^) $(B)/libweft.a $(LDFLAGS_ALL) $(ENDPOINT) $(SYSLIBS)
$(B)/tests/host/%: tests/host/%.c $(B)/libweft.a $(B)/flags
	$(call say,PROG,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(PROG_CFLAGS) $(TEST_DEFS) $(CFLAGS) $< -o $@ -rdynamic $(B)/libweft.a $(LDFLAGS_ALL) $(SYSLIBS)
$(B)/tests/host/%: tests/host/%.cc $(B)/libweft.a $(B)/flags
	$(call say,PROG,$@)
	@mkdir -p $(@D)
	$(Q)$(CXX) -std=gnu++17 $(COMMON) $(TEST_DEFS) $(CXXFLAGS) $< -o $@ -rdynamic $(B)/libweft.a $(LDFLAGS_ALL) $(SYSLIBS)
$(B)/tests/mod/%.so: tests/mod/%.c $(B)/flags
	@mkdir -p $(@D)
	$(Q)$(CC) $(PROG_CFLAGS) $(CFLAGS) -fPIC -shared $< -o $@ $(LDFLAGS_ALL)
$(B)/tests/mod/%.so: tests/mod/%.cc $(B)/flags
	@mkdir -p $(@D)
	$(Q)$(CXX) -std=gnu++17 $(COMMON) $(CXXFLAGS) -fPIC -shared $< -o $@ $(LDFLAGS_ALL)

$(B)/tests/mod/nofp.so $(B)/tests/mod/nofp_other.so: override PROG_CFLAGS += -O2 -fomit-frame-pointer

# The fuzz target of tools/fuzz.sh, with a few thousand inputs of its own instead of libFuzzer.
$(B)/tests/fuzz/replay: $(wildcard tests/fuzz/*.c) $(filter-out %/main.o,$(DOCTOR)) $(B)/flags
	$(call say,PROG,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(PROG_CFLAGS) -Isrc $(CFLAGS) $(filter %.c %.o,$^) -o $@ $(LDFLAGS_ALL) -lz

# The long random run looks inside to tell what was marked (make soak).
$(B)/tests/soak/soak: $(wildcard tests/soak/*.[ch]) $(B)/all.o $(B)/flags
	$(call say,PROG,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(PROG_CFLAGS) $(TEST_DEFS) $(CFLAGS) $(filter %.c,$^) $(B)/all.o -o $@ $(LDFLAGS_ALL) $(SYSLIBS)

# Go's viewers: `go tool` builds them when they are first called, which takes longer than a test may.
$(GO_TOOLS): $(CURDIR)/build/go/%:
	$(call say,GO,$@)
	$(Q)go build -o $@ cmd/$*
$(GO_SERVED): tests/go/served.go
	$(call say,GO,$@)
	$(Q)go build -o $@ $<

deps:
	@tools/deps.sh install build $(if $(CI),check)
have-deps:
	@tools/deps.sh ensure build $(if $(filter check,$(MAKECMDGOALS)),check)
tests: $(filter $(B)/%,$(TESTS)) $(TEST_EXTRA) $(if $(T),,examples) lib
run-tests: tests
	@B='$(B)' CC='$(CC)' CXX='$(CXX)' SAN='$(SAN)' MAKE='$(MAKE_COMMAND)' \
	    TEST_WRAP='$(if $(EMULATOR),$(EMULATOR) -L $(SYSROOT))' tools/run-tests.sh $(TESTS)
test: have-deps
	@$(MAKE) $(JOBS) --no-print-directory run-tests
check: have-deps
	@MAKE='$(MAKE_COMMAND)' tools/check.sh
# T=words: only models whose file name holds one of them.
model:
	@CC='$(CC)' tests/model/run.sh $(T)

# A long random run against the collector: SECONDS in all, an hour by default.
soak: have-deps
	@$(MAKE) $(JOBS) --no-print-directory $(B)/tests/soak/soak
	@B='$(B)' tools/soak.sh $(or $(SECONDS),3600) $(SEED)

# ---- examples, benches ----------------------------------------------------------------------------------------
EXAMPLE_DIRS := $(filter-out bugs,$(notdir $(patsubst %/,%,$(dir $(wildcard examples/*/*.c)))))
EXAMPLES := $(patsubst examples/%.c,$(B)/examples/%,$(filter-out $(if $(SERVE),,examples/bugs/14_%),$(wildcard examples/*.c examples/bugs/*.c))) \
    $(foreach d,$(sort $(EXAMPLE_DIRS)),$(B)/examples/$d/$d)
PROG_LINK = $(Q)$(CC) $(PROG_CFLAGS) $(CFLAGS) $(ENDPOINT_CFLAGS) $(filter %.c,$^) -o $@ $(filter %-debug.a,$^) $(B)/libweft.a $(LDFLAGS_ALL) -lm $(ENDPOINT) \
    $(SYSLIBS)
# kv has the endpoint, where it is built.
$(B)/examples/kv/kv: ENDPOINT_CFLAGS = $(if $(SERVE),,-DWITHOUT_ENDPOINT)
$(B)/examples/kv/kv: $(if $(SERVE),$(B)/libweft-debug.a)

# Bug 14 has objects of the endpoint of its own, in which one option switches the rules off; no library has it.
UNSAFE_OBJ := $(SERVE_SRC:src/debug/serve/%.c=$(B)/examples/unsafe/%.o)
$(UNSAFE_OBJ): $(B)/examples/unsafe/%.o: src/debug/serve/%.c $(B)/flags
	@mkdir -p $(@D)
	$(Q)$(CC) $(LIB_CFLAGS) $(CFLAGS) -DWEFT_SERVE_UNSAFE_DEMO -c $< -o $@
$(B)/examples/bugs/14_%: examples/bugs/14_%.c $(UNSAFE_OBJ) $(PAGE_OBJ) $(B)/libweft.a $(B)/flags
	$(call say,PROG,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(PROG_CFLAGS) $(CFLAGS) -DWEFT_SERVE_UNSAFE_DEMO $(filter %.c %.o %.a,$^) -o $@ $(LDFLAGS_ALL) -lm $(SERVE_LIBS) $(SYSLIBS)

examples: $(EXAMPLES)
define DIR_PROGRAM
$(B)/examples/$(1)/$(1): $(wildcard examples/$(1)/*.c) $(wildcard examples/$(1)/*.h) $(B)/libweft.a $(B)/flags
	$$(call say,PROG,$$@)
	@mkdir -p $$(@D)
	$$(PROG_LINK)
endef
$(foreach d,$(sort $(EXAMPLE_DIRS)),$(eval $(call DIR_PROGRAM,$d)))
$(B)/examples/%: examples/%.c $(B)/libweft.a $(B)/flags
	$(call say,PROG,$@)
	@mkdir -p $(@D)
	$(PROG_LINK)

# The same interpreter on Boehm's collector (examples/scheme/mem.h).
scheme-boehm:
	@if echo '#include <gc.h>' | $(CC) -E - > /dev/null 2>&1; then $(MAKE) --no-print-directory $(B)/examples/scheme/scheme-boehm; \
	    else echo "scheme-boehm: skipped, Boehm's collector is missing (Debian: libgc-dev)"; fi
$(B)/examples/scheme/scheme-boehm: $(wildcard examples/scheme/*.c) $(wildcard examples/scheme/*.h) $(B)/flags
	$(call say,PROG,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(PROG_CFLAGS) $(CFLAGS) -DSCHEME_BOEHM $(filter %.c,$^) -o $@ $(LDFLAGS_ALL) -lgc -lm

# And one whose stores tell the collector.
scheme-store: $(B)/examples/scheme/scheme-store
$(B)/examples/scheme/scheme-store: $(wildcard examples/scheme/*.c) $(wildcard examples/scheme/*.h) $(B)/libweft.a $(B)/flags
	$(call say,PROG,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(PROG_CFLAGS) $(CFLAGS) -DSCHEME_STORE $(filter %.c,$^) -o $@ $(B)/libweft.a $(LDFLAGS_ALL) -lm $(SYSLIBS)

demo: have-deps
	@$(MAKE) $(JOBS) --no-print-directory lib examples
	@B='$(B)' examples/demo.sh
bench: have-deps
	@$(MAKE) $(JOBS) --no-print-directory lib
	@B='$(B)' bench/run.sh

shots: lib $(B)/tests/prog/shown $(B)/tests/prog/serve_host $(B)/examples/kv/kv $(if $(shell command -v go),$(GO_TOOLS))
	@B='$(B)' tools/shots.sh

clean:
	rm -rf build
	[ ! -e $(B)/flags ] || rm -rf $(B)

-include $(OBJ:.o=.d) $(LATE_OBJ:.o=.d) $(SERVE_OBJ:.o=.d) $(UNSAFE_OBJ:.o=.d) $(DOCTOR:.o=.d) $(TEST_NAMES:%=$(B)/tests/%.d) $(SUPPORT:.o=.d) $(TEST_EXTRA:=.d) $(EXAMPLES:=.d)
