# SPDX-License-Identifier: Apache-2.0
# A thin front door to Meson. Everything that is built lands in build/.
#   make          build/spillway, build/libspillway-agent.so and build/libspillway.{so,a}
#   make test     all tests, plain and under ASan+UBSan and TSan (WERROR=true: warnings are errors)
#   make demo     a real program with and without a cap
#   make bench    the timing table (ROUNDS=11: hours)
#   make figures  what make bench found last, into docs/
#   make install  PREFIX (default /usr/local), DESTDIR
BUILD   := build
PREFIX  ?= /usr/local
DESTDIR ?=
WERROR  ?= false
ROUNDS  ?= 5

.PHONY: all test demo bench figures install clean

all:
	@tools/setup.sh build
	@tools/configure.sh $(BUILD) -Dwerror=$(WERROR)
	@ninja -C $(BUILD)

test:
	@tools/setup.sh test
	@WERROR=$(WERROR) tools/test.sh $(BUILD)

demo: all
	@tools/setup.sh demo
	@python3 tools/demo.py $(BUILD)/spillway

bench: all
	@tools/setup.sh bench
	@bench/run $(BUILD) --rounds $(ROUNDS)

figures:
	@python3 bench/figures.py $(BUILD)/bench.json docs

install: all
	@tools/configure.sh $(BUILD) -Dprefix=$(PREFIX)
	@DESTDIR="$(DESTDIR)" meson install -C $(BUILD)

clean:
	rm -rf $(BUILD)
