# Two commands: `make demo` makes a talking video, `make test` runs the tests. Each sets up .venv on a fresh machine.
PYTHON ?= python3
# A plain `torch` from PyPI brings CUDA on Linux; set TORCH (and pip's own index variables) to what suits your machine.
TORCH ?= torch==2.13.0
BIN := .venv/bin

.PHONY: demo test test-ray clean

demo: .venv/demo
	mkdir -p out
	$(BIN)/python -m joyavatar_core speak --portrait joyavatar_core/assets/portraits/ada.png \
	  --audio joyavatar_core/assets/voices/ada.flac --out out/demo.mp4 --report out/demo.json

test: .venv/test
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n auto --dist loadgroup
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

# The tests that start Ray, about a minute; the extra takes 330 MB.
test-ray: .venv/test
	$(BIN)/python -m pip install --quiet --editable ".[test,ray]"
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -m ray

clean:
	rm -rf .venv out

.venv/torch:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(TORCH)
	touch $@

.venv/demo: .venv/torch pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

# The speech synthesisers that the training data needs; without them its tests are skipped.
SPEECH := espeak-ng flite libegl1 libgl1 libgl1-mesa-dri libfontconfig1
.venv/speech: .venv/torch
	@if command -v espeak-ng && command -v flite; then touch $@; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get; then \
	  apt-get update -qq && apt-get install -y -qq --no-install-recommends $(SPEECH) && touch $@; \
	else echo "To test the training data too, install: $(SPEECH)"; fi

.venv/test: .venv/torch .venv/speech pyproject.toml
	$(BIN)/python -m pip install --quiet --editable ".[test,train]"
	touch $@
