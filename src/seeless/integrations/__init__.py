"""Doors into other people's frameworks; each imports its framework inside functions, or is only imported by it."""
