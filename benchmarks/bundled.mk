# The figures of the bundled fscnn, and the parity of the bundled aasist-l: exports and quantizes their weights, and
# measures them as each file about them in benchmarks/results/ was. Stopped anywhere, it goes on with the next file.
#
#   make -f benchmarks/bundled.mk AUDIO=DIR AASIST=AASIST.pth AASIST_L=AASIST-L.pth OUT=DIR     (-n prints the commands)
#
# AUDIO is a folder of labelled recordings with a manifest.tsv, the others are the authors' checkpoints. Where those of
# quantize/calibration_clips.txt are not among the recordings, CALIBRATION=all takes what there is. Results go to
# OUT/results. SEEDS='A B C', the checkpoints of a recipe's seeds, adds the table of these. Leave the machine alone
# meanwhile: ten minutes, and then longer, since three files of the bundled aasist-l hear the whole corpus, and AASIST
# and AASIST-L every clip in eight ways where no results of theirs are known yet. Where it has no emulator of other
# processors yet, it fetches one (benchmarks/processors.py; Debian on x86-64, 150 MB).

PYTHON ?= .venv/bin/python
RESULTS := $(OUT)/results
SEEDS ?=
CALIBRATION ?=

ifneq ($(words $(AUDIO)) $(words $(AASIST)) $(words $(AASIST_L)) $(words $(OUT)),1 1 1 1)
$(error say AUDIO=DIR, AASIST=FILE, AASIST_L=FILE and OUT=DIR, without spaces in them)
endif

BUNDLED := antispoof/checkpoints
TRIALS := --audio $(AUDIO) --protocol $(AUDIO)/manifest.tsv
UNHEARD := $(TRIALS) --split dev --split test
onnx = $(1:%=$(OUT)/fscnn.%.onnx)
tflite = $(1:%=$(OUT)/fscnn.%.tflite)
QAT := $(OUT)/fscnn-qat.onnx $(OUT)/fscnn-qat.w8a8-rr.onnx $(OUT)/fscnn-qat.w8a8-rr-f64.onnx
ABOUT := latency quantized streaming processors parity robustness conditions $(if $(SEEDS),seeds)
# The authors' lies in OUT.
OWN_AASIST_L := $(OUT)/bundled/aasist-l

.PHONY: all
.SECONDARY:
.NOTPARALLEL: # or they would time each other
.DELETE_ON_ERROR:
all: $(ABOUT:%=$(RESULTS)/%-fscnn.json) $(RESULTS)/parity-aasist-l.json

$(OUT)/fscnn.onnx: $(BUNDLED)/fscnn.safetensors
	$(PYTHON) export/to_onnx.py --model fscnn --out $(OUT) --force

$(OUT)/fscnn-qat.onnx: $(BUNDLED)/fscnn-qat.safetensors
	$(PYTHON) export/to_onnx.py --model fscnn --checkpoint qat --name fscnn-qat --out $(OUT) --force

$(OUT)/aasist-l.onnx: $(AASIST_L)
	$(PYTHON) export/to_onnx.py --model aasist-l --checkpoint $< --out $(OUT) --force

$(OWN_AASIST_L).onnx: $(BUNDLED)/aasist-l.safetensors
	$(PYTHON) export/to_onnx.py --model aasist-l --out $(@D) --force

$(OWN_AASIST_L)-qat.onnx: $(BUNDLED)/aasist-l-qat.safetensors
	$(PYTHON) export/to_onnx.py --model aasist-l --checkpoint qat --name aasist-l-qat --out $(@D) --force

$(OUT)/fscnn.tflite: $(BUNDLED)/fscnn.safetensors
	$(PYTHON) export/to_tflite.py --model fscnn --out $(OUT) --force

$(OUT)/fscnn.mixed.mlpackage: $(BUNDLED)/fscnn.safetensors
	$(PYTHON) export/to_coreml.py --model fscnn --precision mixed --name fscnn.mixed --out $(OUT) --force

$(OUT)/fscnn.cached.json: $(BUNDLED)/fscnn.safetensors
	$(PYTHON) export/to_onnx_cached.py --model fscnn --out $(OUT) --force

# The recipe is what stands between the first dot of a name and its last.
recipe = $(patsubst .%,%,$(suffix $(basename $(notdir $@))))
quantize = $(PYTHON) quantize/$(1)_int8.py $< --recipe $(recipe) --audio $(AUDIO) \
	$(CALIBRATION:%=--calibration %) --force

$(call onnx,w8a8 w8a8-rr w8a8-rr-learned w8a8-rr-learned-f64 w8 f16-mixed): $(OUT)/fscnn.onnx
	$(call quantize,onnx)

$(OUT)/fscnn-qat.w8a8-rr.onnx $(OUT)/fscnn-qat.w8a8-rr-f64.onnx: $(OUT)/fscnn-qat.onnx
	$(call quantize,onnx)

$(OWN_AASIST_L).w8a8-rr.onnx $(OWN_AASIST_L)-qat.w8a8-rr.onnx: %.w8a8-rr.onnx: %.onnx
	$(call quantize,onnx)

$(call tflite,w8 w8d8): $(OUT)/fscnn.tflite
	$(call quantize,tflite)

results = --json $@ --force

$(RESULTS)/latency-fscnn.json: $(OUT)/aasist-l.onnx $(OUT)/fscnn.onnx \
		$(call onnx,w8a8-rr-learned w8a8-rr-learned-f64) $(OUT)/fscnn.tflite
	$(PYTHON) benchmarks/latency.py aasist-l-onnx=$(OUT)/aasist-l.onnx fscnn-onnx=$(OUT)/fscnn.onnx \
		fscnn-w8a8-rr-learned=$(OUT)/fscnn.w8a8-rr-learned.onnx \
		fscnn-w8a8-rr-learned-f64=$(OUT)/fscnn.w8a8-rr-learned-f64.onnx \
		fscnn-tflite=$(OUT)/fscnn.tflite $(results)

$(RESULTS)/quantized-fscnn.json: $(OUT)/fscnn.onnx \
		$(call onnx,w8a8-rr-learned w8a8-rr-learned-f64 w8a8-rr w8 f16-mixed)
	$(PYTHON) benchmarks/quantized.py $^ $(UNHEARD) --cache $(OUT)/scores $(results)

$(RESULTS)/streaming-fscnn.json: $(OUT)/fscnn.onnx $(OUT)/fscnn.cached.json
	$(PYTHON) benchmarks/streaming.py $^ $(UNHEARD) $(results)

# That a file fails, exit code 1, is a figure too, and is among the results.
failing = || { test $$? -eq 1 && test -e $@; }

$(RESULTS)/processors-fscnn.json: $(OUT)/fscnn.onnx \
		$(call onnx,w8a8 w8a8-rr w8a8-rr-learned w8a8-rr-learned-f64 w8) $(OUT)/fscnn.tflite $(call tflite,w8d8 w8)
	$(PYTHON) benchmarks/processors.py $^ $(results) $(failing)

$(RESULTS)/parity-fscnn.json: $(OUT)/fscnn.onnx $(QAT) $(call onnx,w8a8-rr w8 f16-mixed) \
		$(OUT)/fscnn.tflite $(call tflite,w8 w8d8) $(OUT)/fscnn.mixed.mlpackage
	$(PYTHON) benchmarks/parity.py $^ --other-weights $(TRIALS) --cache $(OUT)/scores $(results) $(failing)

$(RESULTS)/parity-aasist-l.json: $(OWN_AASIST_L).onnx $(OWN_AASIST_L)-qat.w8a8-rr.onnx $(OWN_AASIST_L).w8a8-rr.onnx
	$(PYTHON) benchmarks/parity.py $^ --other-weights $(TRIALS) --cache $(OUT)/scores $(results) $(failing)

$(RESULTS)/robustness-fscnn.json: $(OUT)/fscnn.onnx
	$(PYTHON) benchmarks/robustness.py $< $(TRIALS) --split test --cache $(OUT)/scores $(results)

# What others' weights were once measured to do they need not do again; KNOWN= measures it anew, in two hours.
KNOWN := $(wildcard benchmarks/results/conditions-fscnn.json) $(wildcard benchmarks/results/seeds-fscnn.json)
BESIDE := --beside aasist-l-bundled=$(BUNDLED)/aasist-l.safetensors --beside aasist-l=$(AASIST_L) \
	--beside aasist=$(AASIST) $(KNOWN:%=--known %)

$(RESULTS)/conditions-fscnn.json: $(BUNDLED)/fscnn.safetensors $(BUNDLED)/aasist-l.safetensors $(AASIST_L) $(AASIST)
	$(PYTHON) benchmarks/seeds.py $< $(BESIDE) --audio $(AUDIO) --condition 'corrupted in six ways' \
		--condition 'without the silence around the speech' --cache $(OUT)/scores $(results)

$(RESULTS)/seeds-fscnn.json: $(SEEDS) $(BUNDLED)/aasist-l.safetensors $(AASIST_L) $(AASIST)
	$(PYTHON) benchmarks/seeds.py $(SEEDS) $(BESIDE) --audio $(AUDIO) --dataset 'HiFi-GAN-demo*' \
		--condition 'corrupted in six ways' --cache $(OUT)/scores $(results)
