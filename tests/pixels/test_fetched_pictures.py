"""Pictures from the web, by servers of this machine, and the machines nothing is fetched from."""

import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image
from pixel_files import shown, written

from seeless.pixels import UnreadableImage, addresses, fetch, load_image

DATA = written(Image.fromarray(shown()), "PNG")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked.append(self.path)
        name, _, rest = self.path.lstrip("/").partition("/")
        getattr(self, f"answer_{name}", self.answer_other)(rest)

    def reply(self, code, body=b"", headers=()):
        self.send_response(code)
        for header in headers:
            self.send_header(*header)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def answer_picture(self, rest):
        self.reply(200, DATA)

    def answer_to(self, target):
        self.reply(302, headers=[("Location", self.server.targets[target])])

    def answer_hops(self, left):
        self.reply(
            int(left[:3]),
            headers=[("Location", f"/hops/{left[:3]}{int(left[3:]) - 1}" if left[3:] != "1" else "/picture")],
        )

    def answer_circle(self, rest):
        self.reply(302, headers=[("Location", "/circle")])

    def answer_page(self, rest):
        self.reply(200, b"<!doctype html><html></html>")

    def answer_large(self, rest):
        self.reply(200, DATA + bytes(5000))

    def answer_endless(self, rest):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            while True:
                self.wfile.write(b"400\r\n" + bytes(1024) + b"\r\n")
        except OSError:
            self.close_connection = True

    def drip(self, byte):
        """One byte after the other for some seconds, unless the other side hangs up."""
        try:
            for _ in range(100):
                self.wfile.write(byte)
                time.sleep(0.05)
        except OSError:
            self.server.hung_up.set()
        self.close_connection = True

    def answer_slow(self, rest):
        self.send_response(200)
        self.send_header("Content-Length", "3000")
        self.end_headers()
        self.drip(b"x")

    def answer_headers(self, rest):
        self.send_response(200)
        self.flush_headers()
        self.drip(b"X")

    def answer_silent(self, rest):
        self.server.end.wait(5)
        self.close_connection = True

    def answer_half(self, rest):
        self.send_response(200)
        self.send_header("Content-Length", str(len(DATA)))
        self.end_headers()
        self.wfile.write(DATA[:-20])
        self.close_connection = True

    def answer_chunks(self, rest):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for at in range(0, len(DATA), 50):
            piece = DATA[at : at + 50]
            self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def answer_other(self, rest):
        self.reply(404)

    def log_message(self, *arguments):
        pass


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.asked, running.targets = [], {}
        running.end, running.hung_up = threading.Event(), threading.Event()
        running.daemon_threads = True
        running.url = f"http://127.0.0.1:{running.server_address[1]}"
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        yield running
        running.end.set()
        running.shutdown()


def same(url: str) -> bool:
    return bool((np.asarray(load_image(url, allow_private=True)) == shown()).all())


def refused(url: str, *parts: str, allow_private: bool = True) -> None:
    with pytest.raises(UnreadableImage) as error:
        load_image(url, allow_private=allow_private)
    for part in ("cannot read the picture", *parts):
        assert part in str(error.value)


def test_addresses_as_people_write_them(server):
    assert same(f"{server.url}/picture/x.png")
    assert same(f"HTTP{server.url[4:]}/picture/x.png")
    assert same(f" {server.url}/picture/a b/ü.png?ä=ö&b=[1]%20#part ")
    assert server.asked[-1] == "/picture/a%20b/%C3%BC.png?%C3%A4=%C3%B6&b=[1]%20"
    assert same(f"{server.url}/chunks")
    assert same(f"http://localhost:{server.server_address[1]}/picture")


def test_what_a_server_may_answer(server):
    refused(f"{server.url}/nothing", "the server answers 404")
    refused(f"{server.url}/page/cat.jpg", "a web page, not a picture; give the address of the picture itself")
    refused(f"{server.url}/half", f"broke off after {len(DATA) - 20} of {len(DATA)} bytes")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        refused(f"http://127.0.0.1:{free.getsockname()[1]}/x", "refused")
    refused("http://", "cannot read the picture 'http://'")
    refused("http://[::1/x.png", "cannot read the picture")
    refused("http://no-such-name.invalid/x.png", "no-such-name.invalid")


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects(server, code):
    assert same(f"{server.url}/hops/{code}5")
    refused(f"{server.url}/hops/{code}6", "more than 5 times")
    refused(f"{server.url}/circle", "in a circle")


def test_redirects_lead_to_the_web_only(server, tmp_path):
    (tmp_path / "x.png").write_bytes(DATA)
    for name, target in (
        ("file", f"file://{tmp_path}/x.png"),
        ("path", "ftp://127.0.0.1/x.png"),
        ("data", "data:image/png;base64,AAAA"),
    ):
        server.targets[name] = target
        refused(f"{server.url}/to/{name}")


def test_limits(server, monkeypatch):
    monkeypatch.setattr(fetch, "MAX_BYTES", 4000)
    assert same(f"{server.url}/picture")
    refused(f"{server.url}/large", "larger than 0.00381 MiB")
    refused(f"{server.url}/endless", "larger than")
    monkeypatch.setattr(fetch, "SECONDS", 0.3)
    for name in ("slow", "headers"):
        server.hung_up.clear()
        refused(f"{server.url}/{name}", "not arrived within 0.3 seconds")
        assert server.hung_up.wait(10), name
    monkeypatch.setattr(fetch, "SECONDS", 60)
    monkeypatch.setattr(fetch, "SILENCE", 0.2)
    refused(f"{server.url}/silent", "timed out")


PRIVATE = [
    *("127.0.0.1", "127.8.8.8", "127.1", "2130706433", "0x7f000001", "0x7f.1", "017700000001", "0", "0.0.0.0"),
    *("localhost", "%31%32%37.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
    *("224.0.0.1", "255.255.255.255", "[::1]", "[::]", "[fe80::1]", "[fc00::1]", "[fec0::1]", "[ff02::1]"),
    *("[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[64:ff9b::10.0.0.1]"),
    *("[2002:7f00:1::]", "[2001:0:7f00:1::]", "[64:ff9b:1::1]", "user@127.0.0.1", "127.0.0.1:80#@example.org"),
]


@pytest.mark.parametrize("host", PRIVATE)
@pytest.mark.parametrize("scheme", ["http", "https", "HTTP"])
def test_nothing_is_fetched_from_private_addresses(host, scheme, monkeypatch):
    opened = []
    monkeypatch.setattr(socket, "create_connection", lambda *arguments: opened.append(arguments))
    with pytest.raises(UnreadableImage) as error:
        load_image(f"{scheme}://{host}/x.png")
    assert opened == []
    if "@" not in host:
        assert "--allow-private-urls" in str(error.value) or "Address family" in str(error.value)


def test_public_addresses():
    for address in ("8.8.8.8", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8", "2002:808:808::"):
        assert addresses.is_public(address)
    for host in PRIVATE:
        if host.startswith("["):
            assert not addresses.is_public(host.strip("[]"))


def names(monkeypatch, **known: list[str]) -> list:
    """Resolve names as told; returns the addresses that are connected to."""
    real, opened = socket.getaddrinfo, []

    def resolve(host, port, *arguments, **options):
        found = known.get(str(host).split(".")[0], [host])
        return [entry for each in found for entry in real(each, port, *arguments, **options)]

    def connect(address, *arguments):
        opened.append(address)
        raise ConnectionRefusedError(111, "nobody there")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "create_connection", connect)
    return opened


def test_names_are_looked_up_once_and_refused_if_one_address_is_private(monkeypatch):
    opened = names(monkeypatch, inside=["10.0.0.7"], mixed=["8.8.8.8", "127.0.0.1"], outside=["8.8.8.8", "8.8.4.4"])
    for host in ("inside.example.org", "mixed.example.org"):
        refused(f"https://{host}/x.png", f"{host} is ", "--allow-private-urls", allow_private=False)
    assert opened == []
    refused("http://outside.example.org:81/x.png", "nobody there", allow_private=False)
    assert opened == [("8.8.8.8", 81), ("8.8.4.4", 81)]  # what was looked at, not the name again


def test_names_in_other_scripts(monkeypatch):
    opened = names(monkeypatch, **{"xn--bcher-kva": ["8.8.4.4"]})
    refused("https://bücher.example.org:444/x.png", "nobody there", allow_private=False)
    assert opened == [("8.8.4.4", 444)]


def test_redirects_into_the_own_network_are_refused(server, monkeypatch):
    """A public name leads to the test server; what it redirects to is looked at like any other address."""
    real = socket.create_connection
    port = server.server_address[1]
    names(monkeypatch, public=["8.8.8.8"], inside=["192.168.0.9"])
    reached = []

    def connect(address, *arguments):
        reached.append(address)
        return real(("127.0.0.1", port), *arguments)

    monkeypatch.setattr(socket, "create_connection", connect)
    server.targets |= {"self": f"{server.url}/picture", "name": "http://inside.example.org/x", "hex": "http://0x7f.1/x"}
    assert (np.asarray(load_image("http://public.example.org/hops/3021")) == shown()).all()
    for target in server.targets:
        reached.clear()
        refused(f"http://public.example.org/to/{target}", "--allow-private-urls", allow_private=False)
        assert reached == [("8.8.8.8", 80)]


def test_proxies_of_the_environment(server, monkeypatch):
    """What is asked of a proxy is looked at as if it were fetched from here."""
    monkeypatch.setenv("http_proxy", server.url)
    names(monkeypatch, public=["8.8.8.8"], inside=["192.168.0.9"])
    refused("http://inside.example.org/x.png", "192.168.0.9", allow_private=False)
    refused("http://public.example.org/x.png", "127.0.0.1", "--allow-private-urls", allow_private=False)
    assert server.asked == []
    monkeypatch.undo()
    monkeypatch.setenv("http_proxy", server.url)
    with pytest.raises(UnreadableImage, match="404"):
        load_image("http://inside.example.org/x.png", allow_private=True)
    assert server.asked == ["http://inside.example.org/x.png"]


def test_the_command_line(server, tmp_path, monkeypatch, capsys):
    from seeless.cli.main import main

    monkeypatch.chdir(tmp_path)
    call = ["run", "--image", f"{server.url}/picture", "--repeats", "0", "--max-new-tokens", "1", "--json"]
    with pytest.raises(SystemExit) as end:
        main(call)
    assert end.value.code == 5 and "--allow-private-urls" in capsys.readouterr().err and server.asked == []
    with pytest.raises(SystemExit) as end:
        main([*call, "--allow-private-urls"])
    assert end.value.code in (0, None) and f"{server.url}/picture" in capsys.readouterr().out
