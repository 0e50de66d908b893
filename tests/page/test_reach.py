"""What a request can reach: the page, and no file of the machine."""

import json
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from seeless.demo.serving import serving
from seeless.named.errors import ImpossiblePlace
from seeless.tiny import draw_scene

pytestmark = pytest.mark.browser
SOURCE = str(Path(__file__).resolve())


@pytest.fixture
def client(address):
    import httpx

    with httpx.Client(base_url=address, trust_env=False, timeout=60) as found:
        yield found


@pytest.mark.parametrize(
    "path",
    [
        *(f"{route}={name}" for route in ("gradio_api/file", "file") for name in ("/etc/passwd", SOURCE, "README.md")),
        "gradio_api/file=../../../../../../etc/passwd",
        "gradio_api/file=" + quote("/etc/passwd", safe=""),
        "gradio_api/file=file:///etc/passwd",
        "static/" + quote("../../../../../../../../etc/passwd", safe=""),
        "assets/..%2f..%2f..%2f..%2f..%2f..%2f..%2fetc/passwd",
        "monitoring/summary",
        "gradio_api/reload",
    ],
)
def test_no_file_of_the_machine_is_served(client, path):
    answer = client.get(path)
    assert answer.status_code in (403, 404), answer.status_code
    assert "root:" not in answer.text and "pytest" not in answer.text


def call(client, event, data):
    """What the page's own first request of a kind would get, as text."""
    config = client.get("config").json()
    number = next(each["id"] for each in config["dependencies"] if each["targets"][0][1] == event)
    body = {"data": data, "fn_index": number, "session_hash": "visitor", "event_data": None, "trigger_id": None}
    joined = client.post("gradio_api/queue/join", json=body)
    if joined.status_code != 200:
        return joined.text
    messages = []
    with client.stream("GET", "gradio_api/queue/data", params={"session_hash": "visitor"}) as stream:
        for line in stream.iter_lines():
            if line.startswith("data:"):
                messages.append(json.loads(line[5:]))
                if messages[-1]["msg"] in ("process_completed", "unexpected_error", "close_stream"):
                    break
    return json.dumps(messages)


def file_data(path, **more):
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}, **more}


def test_a_picture_of_the_machine_is_not_shown(client, tmp_path):
    """Who says that a file of the machine was uploaded is not believed; who really uploads it sees it."""
    draw_scene(0).image.save(tmp_path / "private.png")
    told = call(client, "load", ["tiny", file_data(tmp_path / "private.png"), None, "", None])
    assert "data:image" not in told and '"success": false' in told
    sent = {"files": ("mine.png", (tmp_path / "private.png").read_bytes())}
    (uploaded,) = client.post("gradio_api/upload", files=sent).json()
    assert "data:image" in call(client, "load", ["tiny", file_data(uploaded), None, "", None])
    for url in (str(client.base_url.join("config")), "file:///etc/passwd"):  # an address in place of a file
        told = call(client, "load", ["tiny", file_data(url, url=url), None, "", None])
        assert "data:image" not in told and "root:" not in told


def test_models_that_are_not_offered_are_refused(client):
    told = call(client, "load", ["/etc", None, 0, "", None])
    assert "data:image" not in told and '"success": false' in told


def test_a_large_upload_is_refused(client):
    answer = client.post("gradio_api/upload", files={"files": bytes(51 * 2**20)})
    assert answer.status_code == 413


def test_it_listens_on_this_machine_alone(address):
    port = f"{urlsplit(address).port:04X}"
    lines = [line.split() for file in ("tcp", "tcp6") for line in Path(f"/proc/net/{file}").read_text().splitlines()]
    assert [line[1] for line in lines if line[1].endswith(f":{port}") and line[3] == "0A"] == [f"0100007F:{port}"]


def test_a_place_that_cannot_be_had_is_named(address):
    from seeless.demo.page import Page
    from seeless.demo.shelf import Shelf

    taken = urlsplit(address).port
    with (
        pytest.raises(ImpossiblePlace, match=f"cannot listen on 127.0.0.1, port {taken}: the port is taken"),
        serving(Page(Shelf(["tiny"])), "127.0.0.1", taken),
    ):
        pass


def test_what_was_uploaded_goes_with_the_page(tmp_path):
    import httpx

    from seeless.demo.page import Page
    from seeless.demo.shelf import Shelf

    with serving(Page(Shelf(["tiny"])), "127.0.0.1", None) as address:
        with httpx.Client(base_url=address, trust_env=False) as client:
            (uploaded,) = client.post("gradio_api/upload", files={"files": b"mine"}).json()
        assert Path(uploaded).is_file() and "seeless-demo-" in uploaded
    assert not Path(uploaded).exists()
