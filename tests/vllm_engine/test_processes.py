"""Several processes: two ranks that share a tower's heads, and the server with clients that set budgets."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from both import differing, picture, reference
from requests_of import requests_of
from saved_for_vllm import save

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# `vllm bench serve`, which builds of vLLM under another name have no working command for
BENCH = """
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser

parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""
BOTH_CORES = {"VLLM_CPU_OMP_THREADS_BIND": "0|1"}


@pytest.mark.parametrize(
    ("kind", "strategy"),
    [("llava", {"strategy": "vispruner", "keep": 16}), ("qwen2_5_vl", {"strategy": "fastervlm", "keep": 0.25})],
    ids=["llava", "qwen2_5_vl"],
)
@pytest.mark.parametrize("tower", ["weights", "data"])
def test_ranks_choose_alike(tmp_path, kind, strategy, tower):
    folder = save(kind, tmp_path / kind)
    options = {"tensor_parallel_size": 2, "mm_encoder_tp_mode": tower}
    command = [sys.executable, HERE / "one_engine.py", kind, folder, json.dumps(strategy), json.dumps(options)]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **BOTH_CORES}, timeout=550)
    found = [line for line in run.stdout.splitlines() if line.startswith("ANSWERS")]
    assert found, run.stderr[-3000:]
    answers, _ = json.loads(found[0].removeprefix("ANSWERS"))
    assert differing(answers, reference(folder, strategy, requests_of(kind))) == []


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = save("llava", tmp_path_factory.mktemp("llava"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "seeless.cli.main",
        "serve",
        str(folder),
        "--strategy",
        "fastervlm",
        "--keep",
        "16",
    ]
    command += ["--port", str(port), "--host", "127.0.0.1", "--trust-request-mm-kwargs", "--dtype", "float32"]
    command += ["--enforce-eager", "--max-model-len", "1024", "--served-model-name", "tiny"]
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    log = (tmp_path_factory.mktemp("log") / "server.log").open("w+")
    process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        for _ in range(500):
            if process.poll() is not None:
                log.seek(0)
                pytest.fail(log.read()[-3000:])
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
                break
            except OSError:
                time.sleep(1)
        yield f"http://127.0.0.1:{port}", folder
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def test_the_load_of_the_page(server, tmp_path):
    """docs/serve.md's line that measures a server, on smaller pictures and fewer of them."""
    (line,) = re.findall(r"^vllm (bench serve .*?)^```", (ROOT / "docs/serve.md").read_text(), re.M | re.S)
    words = shlex.split(line.replace("\\\n", " ").replace("MODEL", "tiny").replace("(336, 336, 1)", "(112, 112, 1)"))
    for option, less in {"--random-input-len": "8", "--random-output-len": "2", "--num-prompts": "3"}.items():
        words[words.index(option) + 1] = less
    words += ["--base-url", server[0], "--tokenizer", str(server[1]), "--save-result", "--result-dir", str(tmp_path)]
    command = [sys.executable, "-c", BENCH, *words[2:]]
    run = subprocess.run(command, capture_output=True, text=True, timeout=550)
    assert run.returncode == 0, run.stderr[-3000:]
    (result,) = (json.loads(file.read_text()) for file in tmp_path.glob("*.json"))
    assert result["completed"] == 3 and result["median_ttft_ms"] > 0


def test_clients_set_budgets(server):
    import base64
    import io

    import openai

    file = io.BytesIO()
    picture(5, 140, 120).save(file, "PNG")
    address = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    content = [{"type": "image_url", "image_url": {"url": address}}, {"type": "text", "text": "how many digits?"}]
    client = openai.OpenAI(base_url=f"{server[0]}/v1", api_key="none")

    def ask(**asked):
        extra = {"extra_body": {"mm_processor_kwargs": {"seeless": asked}}} if asked else {}
        messages = [{"role": "user", "content": content}]
        return client.chat.completions.create(model="tiny", messages=messages, max_tokens=4, temperature=0, **extra)

    tokens = {keep: ask(keep=keep).usage.prompt_tokens for keep in (8, 0.5, 1.0)}
    assert tokens[0.5] - tokens[8] == 32 - 8 and tokens[1.0] - tokens[8] == 64 - 8
    assert ask().usage.prompt_tokens - tokens[8] == 16 - 8
    with pytest.raises(openai.BadRequestError, match="keep=0 keeps no token") as error:
        ask(keep=0)
    assert error.value.status_code == 400
    with pytest.raises(openai.BadRequestError, match="a request cannot set 'strategy'"):
        ask(strategy="fastv")
    assert ask(keep=8).usage.prompt_tokens == tokens[8]
