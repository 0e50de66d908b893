"""Fetch a picture from the web: within limits of size, time and redirects, and from public machines only."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit, urlunsplit
from urllib.request import (
    AbstractHTTPHandler,
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPRedirectHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    UnknownHandler,
)

from seeless.pixels.addresses import connect_to_public, public_addresses

MAX_BYTES = 64 * 2**20
MAX_REDIRECTS = 5
SILENCE, SECONDS = 30.0, 120.0  # how long a server may be silent, and how long all of it may take
KEPT = "/%:@!$&'()*+,;=~?[]"  # what stays as it is in a path or query
AGENT = "seeless"


def fetch(url: str, allow_private: bool = False) -> bytes:
    """What is at an http(s) address; other characters than ASCII are written as addresses have them.

    Raises:
        OSError, HTTPException, ValueError: it cannot be fetched, is too large or too slow, or is not public.
    """
    web = _Web(allow_private)
    opener = OpenerDirector()
    handlers = (_Proxies(allow_private), web, _Redirects(), HTTPDefaultErrorHandler(), HTTPErrorProcessor())
    for handler in (*handlers, UnknownHandler()):
        opener.add_handler(handler)
    with web.at_most(SECONDS):
        return _fetch(opener, _ascii(url))


def _fetch(opener: OpenerDirector, url: str) -> bytes:
    try:
        with opener.open(Request(url, headers={"User-Agent": AGENT}), timeout=SILENCE) as answer:
            return _read(answer)
    except HTTPError as error:
        error.close()
        raise ValueError(f"the server answers {error.code} {error.msg}".strip()) from error
    except URLError as error:
        if isinstance(error.reason, OSError):
            raise error.reason from error
        raise ValueError(str(error.reason)) from error


def _read(answer: HTTPResponse) -> bytes:
    promised, content = answer.length, bytearray()
    while promised is None or len(content) < promised:
        if max(promised or 0, len(content)) > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES / 2**20:.3g} MiB; download it and give the file")
        piece = answer.read1(2**16)
        content += piece
        if not piece:
            break
    if len(content) < (promised or 0):
        raise ValueError(f"the server broke off after {len(content):,} of {promised:,} bytes")
    return bytes(content)


def _ascii(url: str) -> str:
    parts = urlsplit(url.strip())
    host = parts.netloc if parts.netloc.isascii() else parts.netloc.encode("idna").decode()
    return urlunsplit((parts.scheme, host, quote(parts.path, KEPT), quote(parts.query, KEPT), ""))


class _Web(AbstractHTTPHandler):
    """Opens http and https addresses, through connections to public machines unless told."""

    def __init__(self, allow_private: bool) -> None:
        super().__init__()
        self._connect = socket.create_connection if allow_private else connect_to_public
        self._sockets: list[socket.socket] = []
        self._late = False

    @contextmanager
    def at_most(self, seconds: float) -> Iterator[None]:
        """Inside, everything is cut off after so many seconds, however little is sent how often."""
        clock = threading.Timer(seconds, self._hang_up)
        clock.daemon = True
        clock.start()
        try:
            yield
            if self._late:  # an answer without a length ends where it is cut off
                raise TimeoutError
        except Exception as error:
            if self._late:
                raise ValueError(
                    f"it has not arrived within {seconds:.3g} seconds; download it and give the file"
                ) from error
            raise
        finally:
            clock.cancel()
            for each in self._sockets:
                each.close()

    def _hang_up(self) -> None:
        self._late = True
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def http_open(self, request: Request) -> HTTPResponse:
        return self.do_open(partial(self._connection, HTTPConnection), request)

    def https_open(self, request: Request) -> HTTPResponse:
        return self.do_open(partial(self._connection, HTTPSConnection), request)

    def http_request(self, request: Request) -> Request:
        return self.do_request_(request)

    https_request = http_request

    def _connection(self, kind: type[HTTPConnection], host: str, **options: Any) -> HTTPConnection:
        connection: Any = kind(host, **options)
        connection._create_connection = self._open_socket
        return connection

    def _open_socket(self, *arguments: Any) -> socket.socket:
        connected = self._connect(*arguments)
        self._sockets.append(connected.dup())  # of its own: TLS takes the first one over
        return connected


class _Proxies(ProxyHandler):
    """The proxies of the environment; they would resolve names themselves, so those are looked at before."""

    def __init__(self, allow_private: bool) -> None:
        super().__init__()
        self._allow_private = allow_private

    def proxy_open(self, request: Request, proxy: str, kind: str) -> Any:
        target = urlsplit(request.full_url)
        if not self._allow_private:
            public_addresses(target.hostname or "", target.port or 0)
        return super().proxy_open(request, proxy, kind)


class _Redirects(HTTPRedirectHandler):
    """Follows redirects to other http(s) addresses."""

    max_redirections = MAX_REDIRECTS
    inf_msg = f"redirects in a circle or more than {MAX_REDIRECTS} times; the last answer was "

    def http_error_308(self, request: Request, answer: Any, code: int, message: str, headers: Any) -> Any:
        return self.http_error_302(request, answer, 301, message, headers)  # which Python 3.10 does not know
