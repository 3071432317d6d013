# Compare settings of translate on a folder: each is run plain and local and evaluated against the true images.
#   make -f examples/benchmark.mk IN=t1 REF=t2_true OUT=bench [TRUTH=lesions] [JOBS=4]
# The reports are OUT/SETTING/report/report.html. Only what is missing, or whose inputs or options changed, is done.
#
# A setting is a name with options of translate (OPTIONS_name; LOCAL_name for those that only Local Diffusion takes):
#   make -f examples/benchmark.mk IN=t1 REF=t2_true OUT=bench SETTINGS='few mine' OPTIONS_mine='--model ./my-model' LOCAL_mine='--tau 0.4'
# File names below IN, REF and TRUTH must have no spaces. A volume that fails stops its setting: figures of other volumes do not compare.
SETTINGS ?= few many
OPTIONS_few ?= --steps 5
OPTIONS_many ?= --steps 20
EVALUATE ?=
JOBS ?= 1
LOCALDIFF ?= localdiff

$(foreach name,IN REF OUT,$(if $($(name)),,$(error $(name) is missing: make -f benchmark.mk IN=FOLDER REF=TRUE_FOLDER OUT=FOLDER)))
files = $(if $(1),$(shell find -L $(1) -type f))
settings := $(SETTINGS:%=$(OUT)/%)
reports := $(settings:%=%/report/report.html)

.PHONY: all FORCE
.DELETE_ON_ERROR:
.NOTPARALLEL: # each command has all cores

all: $(reports)

# The options as they were: written only when they change, so that what depends on them is done again.
$(settings:%=%/options.txt): $(OUT)/%/options.txt: FORCE
	@mkdir -p $(@D)
	@echo '$(OPTIONS_$*) $(LOCAL_$*)' | cmp -s - $@ || echo '$(OPTIONS_$*) $(LOCAL_$*)' >$@

$(settings:%=%/plain.done): $(OUT)/%/plain.done: $(OUT)/%/options.txt $(call files,$(IN))
	$(LOCALDIFF) translate --in $(IN) --out $(OUT)/$*/plain --mode plain $(OPTIONS_$*) --jobs $(JOBS) --overwrite
	@touch $@

$(settings:%=%/local.done): $(OUT)/%/local.done: $(OUT)/%/options.txt $(call files,$(IN))
	$(LOCALDIFF) translate --in $(IN) --out $(OUT)/$*/local $(OPTIONS_$*) $(LOCAL_$*) --jobs $(JOBS) --overwrite
	@touch $@

$(reports): $(OUT)/%/report/report.html: $(OUT)/%/plain.done $(OUT)/%/local.done $(call files,$(REF)) $(call files,$(TRUTH))
	$(LOCALDIFF) evaluate --in $(OUT)/$*/local --baseline $(OUT)/$*/plain --ref $(REF) $(if $(TRUTH),--truth $(TRUTH)) \
	    --condition $(IN) $(EVALUATE) --out $(@D) --jobs $(JOBS)
