"""Tests with a real vLLM, which `make test-vllm` runs in an environment of its own; elsewhere none is collected."""

import importlib.util

collect_ignore_glob = [] if importlib.util.find_spec("vllm") else ["*"]
