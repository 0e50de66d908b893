"""The models that vLLM runs with fewer tokens: one file of classes per family, each a class of vLLM's own and more."""
