"""A page in the browser: a picture and a question, answered with all visual tokens and with fewer, side by side.

What it finds is in `answering`, which knows no Gradio; `rendering` writes it as HTML; `page` and `serving` are for
Gradio.
"""
