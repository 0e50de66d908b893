"""The only code that touches somebody else's model: hooks in, tensors out, everything undone afterwards."""
