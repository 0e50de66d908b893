"""`seeless demo`: a page in the browser."""

import contextlib
import signal
import sys
import threading
from typing import Annotated

import typer

from seeless.cli.console import say
from seeless.named.checkpoints import READER


def demo(
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A hub id, a folder, or reader or tiny, the embedded ones; repeatable. Reader unless told.",
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where to listen; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="The first free one from 7860 on unless told.")
    ] = None,
) -> None:
    """A page in the browser: a picture or a video, a question, methods and a budget; answers side by side.

    It shows what each method keeps and by which scores, stage by stage, tokens per layer, FLOPs and measured times. It
    listens on this machine alone unless told, sends nothing to anybody and fetches nothing from elsewhere.
    """
    from seeless.demo.serving import check_gradio, serving

    check_gradio()
    from seeless.demo.page import Page
    from seeless.demo.shelf import Shelf

    page = Page(Shelf(model or [READER]))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that uploads go with the page
    with contextlib.suppress(KeyboardInterrupt), serving(page, host, port) as address:
        say(f"{address} (Ctrl-C ends it)")
        threading.Event().wait()
