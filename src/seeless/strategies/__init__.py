"""One paper, one file, one class. Files here are found by scanning; nothing needs to be listed."""
