"""Put the page on the network, and nothing else of this machine."""

import importlib.util
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from seeless.errors import MissingExtra
from seeless.named.errors import ImpossiblePlace

if TYPE_CHECKING:
    from seeless.demo.page import Page

LARGEST_FILE = "50mb"
MOST_WAITING = 16  # questions; who comes then is told so
STYLE = Path(__file__).with_name("style.css")
FONTS = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")  # of the reader's machine: none is fetched


def check_gradio() -> None:
    """Raise `MissingExtra` where Gradio is not installed."""
    if importlib.util.find_spec("gradio") is None:
        raise MissingExtra('the page needs Gradio: pip install "seeless[demo]"')


@contextmanager
def serving(page: "Page", host: str, port: int | None) -> Iterator[str]:
    """A page that is served for as long as the block lasts; gives its address.

    What visitors upload lies in a folder of its own, which goes with the page. No other file of the machine is served,
    nothing is told to anybody, and no font or script is fetched from elsewhere.

    Args:
        host: the address to listen on.
        port: None: the first free one from 7860 on.

    Raises:
        MissingExtra: Gradio is not installed.
        ImpossiblePlace: there is no such address or port to be had.
    """
    check_gradio()
    os.environ.pop("GRADIO_ALLOWED_PATHS", None)  # it would open folders behind the page's back
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    with tempfile.TemporaryDirectory(prefix="seeless-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        import gradio as gr

        blocks = page.build().queue(max_size=MOST_WAITING)
        try:
            blocks.launch(
                server_name=host,
                server_port=port,
                share=False,
                quiet=True,
                prevent_thread_lock=True,
                max_file_size=LARGEST_FILE,
                theme=gr.themes.Default(font=FONTS[0], font_mono=FONTS[1]),
                css_paths=STYLE,
                footer_links=[],
                run_history=False,
                enable_monitoring=False,
                ssr_mode=False,
                mcp_server=False,
                pwa=False,
            )
        except (OSError, ValueError) as error:
            which = "any port from 7860 on" if port is None else f"port {port}"
            raise ImpossiblePlace(
                f"cannot listen on {host}, {which}: the port is taken, or this machine has no such address; give others"
            ) from error
        try:
            yield blocks.local_url
        finally:
            blocks.close(verbose=False)
