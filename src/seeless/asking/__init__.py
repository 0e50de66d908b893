"""One question about pictures, put to a model with all visual tokens and with fewer, side by side."""
