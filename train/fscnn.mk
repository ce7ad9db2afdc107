# The default detector, from recordings to three seeds of it: vocoders, copies of speech, networks by labels, the
# networks that teach, the detector, and its first seed fine-tuned for integers. That takes many hours of a CPU
# (benchmarks/training_step.py measures what a step takes); stopped anywhere, it goes on there, but for a vocoder
# and the excerpts, which begin again.
#
#   make -f train/fscnn.mk -j2 AUDIO=DIR AASIST_L=AASIST-L.pth DISTILL_MOS=distill_mos_v7.pt OUT=DIR
#
# (-n prints the commands.) DistillMOS's weights lie in a package of its authors (train/distill_mos.py).
# LYRA=DIR, the folder of Lyra V2's graphs (train/lyra.py), and FARGAN=PROGRAM (train/vocoder_program.py) add the
# copies that these make; the bundled weights had both. Why each step is there: the recipes in train/configs/.
#
# The target aasist-l-qat, made only where it is asked for, fine-tunes the bundled aasist-l for integers.

PYTHON ?= .venv/bin/python
DEVICE ?= cpu
SEEDS ?= 0 1 2
# Instead of the recipes' own, to see all of it run in minutes.
STEPS ?=
VOCODER_STEPS ?=

ifneq ($(words $(AUDIO)) $(words $(AASIST_L)) $(words $(DISTILL_MOS)) $(words $(OUT)),1 1 1 1)
$(error say AUDIO=DIR, AASIST_L=FILE, DISTILL_MOS=FILE and OUT=DIR, without spaces in them)
endif

RECIPES := train/configs
COMMON := --audio $(AUDIO) --config
TRAIN := --resume --device $(DEVICE) $(STEPS:%=--steps %)
VOCODERS := transposed transposed.half transposed-longer transposed-longer.half istft istft.half \
	autoencoder autoencoder.half
VOCODER_FILES := $(VOCODERS:%=$(OUT)/vocoders/%.safetensors)
# Each folder of these has a seed of its own, or copies of one recording by one network would be alike.
BY_VOCODERS := $(VOCODER_FILES:%=--vocoder %) --neural-share 1
BY_LYRA := --vocoder $(LYRA) --neural-share 1 --codec-share 0.1
COPIES := rule-based joined neural neural-crossed $(if $(FARGAN),fargan)
MORE_COPIES := $(COPIES) $(if $(LYRA),lyra lyra-crossed)
lists = $(1:%=$(OUT)/copies/%/manifest.tsv)
more = $(1:%=--more $(OUT)/copies/%)
EXCERPTS := $(OUT)/excerpts/manifest.tsv
OF_ASVSPOOF := $(OUT)/excerpts-of-asvspoof/manifest.tsv
OPINIONS := $(OUT)/opinions
# What a student starts from also teaches it.
MEAN := $(OUT)/mean-0/final.safetensors
PAIRS := $(OUT)/pairs-0/final.safetensors
TEACHERS := $(PAIRS) $(OUT)/taught-0/final.safetensors $(OUT)/taught-1/final.safetensors \
	$(OUT)/asvspoof-0/best.safetensors

.PHONY: all aasist-l-qat
.SECONDARY:
all: $(SEEDS:%=$(OUT)/fscnn-%/final.safetensors) $(OUT)/qat-$(firstword $(SEEDS))/final.safetensors

vocoder = $(PYTHON) train/neural_vocoder.py $(COMMON) $(RECIPES)/fscnn.yaml --force --out $@ \
	--steps $(or $(VOCODER_STEPS),$(1))

$(OUT)/vocoders/transposed.safetensors:
	$(call vocoder,1400) --kind transposed

$(OUT)/vocoders/transposed-longer.safetensors: $(OUT)/vocoders/transposed.safetensors
	$(call vocoder,1600) --kind transposed --start $<

$(OUT)/vocoders/istft.safetensors:
	$(call vocoder,1200) --kind istft

$(OUT)/vocoders/autoencoder.safetensors:
	$(call vocoder,1600) --kind autoencoder

# Written beside the weights that they are half of the way to.
$(OUT)/vocoders/%.half.safetensors: | $(OUT)/vocoders/%.safetensors ;

copy = $(PYTHON) train/vocode.py $(COMMON) $(RECIPES)/fscnn.yaml --resume --out $(@D)

$(OUT)/copies/rule-based/manifest.tsv:
	$(copy) --copies 4

$(OUT)/copies/joined/manifest.tsv:
	$(copy) --copies 2 --way spectral-filtering --way unit-concatenation --seed 1

$(OUT)/copies/neural/manifest.tsv: $(VOCODER_FILES)
	$(copy) --copies 6 $(BY_VOCODERS) --seed 2

$(OUT)/copies/neural-crossed/manifest.tsv: $(VOCODER_FILES)
	$(copy) --copies 4 $(BY_VOCODERS) --cross-share 1 --seed 3

$(OUT)/copies/fargan/manifest.tsv:
	$(copy) --copies 4 --program "fargan=$(FARGAN)" --neural-share 1 --seed 4

$(OUT)/copies/lyra/manifest.tsv:
	$(copy) --copies 5 $(BY_LYRA)

$(OUT)/copies/lyra-crossed/manifest.tsv:
	$(copy) --copies 3 $(BY_LYRA) --cross-share 1 --seed 1

$(OUT)/labels-%/final.safetensors: $(call lists,$(COPIES))
	$(PYTHON) train/fit.py $(COMMON) $(RECIPES)/fscnn.yaml $(call more,$(COPIES)) $(TRAIN) \
		--seed $* --out $(@D)

$(OUT)/pairs-%/final.safetensors: $(call lists,$(MORE_COPIES))
	$(PYTHON) train/fit.py $(COMMON) $(RECIPES)/fscnn-pairs.yaml $(call more,$(MORE_COPIES)) $(TRAIN) \
		--seed $* --out $(@D)

$(EXCERPTS): $(call lists,$(COPIES))
	$(PYTHON) train/transfer_set.py $(COMMON) $(RECIPES)/fscnn-taught.yaml $(call more,$(COPIES)) --out $(@D)

$(OF_ASVSPOOF): $(call lists,$(COPIES))
	$(PYTHON) train/transfer_set.py $(COMMON) $(RECIPES)/fscnn-bundled.yaml $(call more,$(COPIES)) --out $(@D)

distill = $(PYTHON) train/distill.py $(COMMON) $(RECIPES)/fscnn-$(1).yaml $(call more,$(2)) $(TRAIN) \
	--unlabelled $(dir $(or $(3),$(EXCERPTS))) --seed $* --out $(@D)

# The first to ask AASIST-L, once and for all.
$(OUT)/asvspoof-%/best.safetensors: $(EXCERPTS) $(call lists,$(MORE_COPIES))
	$(call distill,asvspoof,$(MORE_COPIES)) --clip-teacher $(AASIST_L) --cached $(OPINIONS)

LABELLED := $(OUT)/labels-0/final.safetensors $(OUT)/labels-1/final.safetensors $(OUT)/labels-2/final.safetensors

$(OUT)/taught-%/final.safetensors: $(LABELLED) | $(OUT)/asvspoof-0/best.safetensors
	$(call distill,taught,$(COPIES)) $(LABELLED:%=--teacher %) --clip-teacher $(AASIST_L) --cached $(OPINIONS)

$(OUT)/mean-%/final.safetensors: $(TEACHERS)
	$(call distill,mean,$(MORE_COPIES)) --start $(PAIRS) $(TEACHERS:%=--teacher %)

$(OUT)/fscnn-%/final.safetensors: $(MEAN) $(OF_ASVSPOOF)
	$(call distill,bundled,$(COPIES),$(OF_ASVSPOOF)) --start $< --teacher $< --clip-teacher $(DISTILL_MOS) \
		--cached $(OPINIONS)

$(OUT)/qat-%/final.safetensors: $(OUT)/fscnn-%/final.safetensors
	$(PYTHON) train/qat.py $(COMMON) $(RECIPES)/fscnn-qat.yaml $(TRAIN) --start $< --seed $* --out $(@D)

aasist-l-qat: $(OUT)/aasist-l-qat/final.safetensors

$(OUT)/aasist-l-qat/final.safetensors: antispoof/checkpoints/aasist-l.safetensors
	$(PYTHON) train/qat.py $(COMMON) $(RECIPES)/aasist-l-qat.yaml $(TRAIN) --start $< --out $(@D)
