# Two commands do everything: `make onnx` exports the bundled detector, `make test` runs the tests.
# Each makes its own environment in .venv first, where there is none yet.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: onnx test test-slow test-arm android ios web web-test lint format clean

onnx: $(INSTALLED)
	$(BIN)/python export/to_onnx.py --out out --force

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -m slow

# Scores quantized files on processors that this machine does not have, in an emulator that it fetches (Debian on
# x86-64); elsewhere skipped with the reason.
test-arm: $(INSTALLED)
	$(BIN)/python -m pytest -n 0 -m emulated tests/test_processors.py

# Signed packages of the demo; needs Debian 12's tools and says SKIPPED with the reason where it has not got them.
android: $(INSTALLED)
	test -f android_demo/app/assets/detector/detector.json || { \
		$(BIN)/python export/to_onnx.py --out out --force && \
		$(BIN)/python export/embed.py android out/fscnn.onnx; }
	PYTHON=$(BIN)/python android_demo/scripts/build-apk.sh out/android

# Builds and tests the Swift package with Swift on Linux; what is Apple's alone is checked as far as that goes.
ios: $(INSTALLED)
	PYTHON=$(abspath $(BIN))/python ios_demo/check.sh

# The demo in a browser: serves it on this machine, with what it loads, all of it local.
web: $(INSTALLED) web_demo/vendor/versions.json web_demo/detector/detector.json
	$(BIN)/python web_demo/serve.py

web-test: $(INSTALLED) web_demo/vendor/versions.json
	$(BIN)/python -m pytest -n 0 -m "slow or not slow" tests/web

web_demo/vendor/versions.json: web_demo/package-lock.json web_demo/build.mjs $(wildcard runtimes/native/*.[ch])
	cd web_demo && ONNXRUNTIME_NODE_INSTALL=skip npm ci --ignore-scripts && npm run build

web_demo/detector/detector.json: | $(INSTALLED)
	$(BIN)/python export/to_onnx.py --out out --force
	$(BIN)/python export/to_tflite.py --out out --force
	$(BIN)/python export/embed.py web out/fscnn.onnx out/fscnn.tflite --force

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(INSTALLED): pyproject.toml requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

clean:
	rm -rf $(VENV) out
