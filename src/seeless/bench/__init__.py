"""Timings, built on the public names only. Nothing here is asserted in tests."""
