# Copyright (c) 2026 nasops.encryption contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# make test           gates, unit tests on every Python at hand, a real NAS in a virtual machine; names what it left out
# make test T=lint    one part, or several: T="lint docs". docs/testing.md lists them.
# make test EXAMPLES=1000 T=unit    draws other and more examples for the unit tests
# make vm-all         every case on the NAS, also the many that are too long for each time; over an hour
# make faults         kills tasks after each of their effects, and cuts the power of a NAS; over an hour
# make sed-faults     injects every fault into every call to an emulated drive; about half an hour
# make sed-bench      unlocks 24 emulated drives at once, and compares that with 4 one after another; a minute
# make bench          measures zfs_dataset_key against shell loops and bare system calls; about 25 minutes
# make replicas       replicates between two NAS over a line that is cut again and again; a quarter of an hour
# make migrations     migrates from GELI disks while runs are killed, disks pulled, the power cut; over half an hour
# make demo           boots a NAS and provisions an encrypted pool on it from inventory
# make setup          only installs what the others need (they do so by themselves)
# make clean          removes the working copy the gates use; caches stay

PYTHON ?= python3

.PHONY: help test vm-all faults sed-faults sed-bench bench replicas migrations demo setup clean

help:
	@sed -n 's/^# make/make/p' Makefile

test:
	@$(PYTHON) tests/tools/gates.py $(T)

vm-all:
	@$(PYTHON) tests/tools/setup.py tests/vm/run --all

faults:
	@$(PYTHON) tests/tools/setup.py tests/faults/run

sed-faults:
	@NASOPS_ALL_FAULTS=1 $(PYTHON) tests/tools/gates.py drives

sed-bench:
	@NASOPS_SED_SPEED=1 $(PYTHON) tests/tools/gates.py drives

bench:
	@$(PYTHON) tests/tools/setup.py tests/benchmarks/run

replicas:
	@$(PYTHON) tests/tools/setup.py tests/replicas/run

migrations:
	@$(PYTHON) tests/tools/setup.py tests/migrations/run --ratios

demo:
	@$(PYTHON) tests/tools/setup.py tests/demo/run

setup:
	@$(PYTHON) tests/tools/setup.py

clean:
	rm -rf .build
