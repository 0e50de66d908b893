"""Try the wheel in fresh environments, one for each Python named, with nothing but what pip resolves today.

    python release/try_wheel.py [--cuda] 3.10 3.11 3.12 3.13

The environment that runs this script is the reference: there and in each fresh one, the demo's answers, twelve greedy
tokens of several questions and `seeless eval --limit 4` must be the same. Only torch is not the newest, see
locks/torch.in. A Python that is not on this machine is skipped; so is one whose torch comes only with CUDA, unless
--cuda allows these gigabytes. Exits with 0 if every Python named was tried and passed, 1 if one failed, 3 if one was
skipped.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TORCH = ["--constraint", ROOT / "locks" / "torch.in"]
REPORTED = ("torch", "transformers", "tokenizers", "numpy", "pillow", "lmms_eval", "torchvision")


class Skipped(Exception):
    """This Python cannot be tried here, and why."""


def run(*command, cwd=None):
    """What the command writes to stdout; one that fails raises `RuntimeError` with the end of its output."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True)
    if done.returncode:
        words = " ".join(str(part) for part in command)
        raise RuntimeError(f"{words}\nexit code {done.returncode}\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


def is_version(python, version):
    """Whether this is a Python of that version; the shims of version managers may be none at all."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True)
    return done.returncode == 0 and done.stdout.strip() == version


def interpreter(version):
    """The first Python of this version in PATH, or among pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    in_path = [shutil.which(name) for name in (f"python{version}", "python3")]
    for python in [*filter(None, in_path), *sorted(pyenv.glob(f"versions/{version}.*/bin/python"))]:
        if is_version(python, version):
            return python
    raise Skipped(f"no Python {version} in PATH or among pyenv's versions")


def observed(python, folder):
    """What an installed seeless answers: the demo, twelve tokens each, four questions of each offline task."""
    folder.mkdir()
    demo = json.loads(run(python, "-m", "seeless.cli.main", "run", "--json", "--repeats", 0, cwd=folder))
    tokens = json.loads(run(python, ROOT / "release" / "answers.py", cwd=folder))
    command = ("eval", "--model", "tiny", "--strategy", "fastv", "--keep", 0.25, "--limit", 4, "--json")
    evaluated = json.loads(run(python, "-m", "seeless.cli.main", *command, cwd=folder).splitlines()[-1])
    return {
        "demo": [(one["strategy"], one["answer"], one["right"], one["visual_tokens"]) for one in demo["runs"]],
        "twelve tokens": tokens,
        "eval": [(row["task"], row["metric"], row["value"], row["samples"]) for row in evaluated["rows"]],
    }


def install(python, wheel, cuda):
    """torch and the wheel; lmms-eval whole where torch has CUDA, else without torchvision, as docs/evaluate.md says."""
    pip = (python, "-m", "pip", "install", "--quiet", *TORCH)
    run(*pip, "--upgrade", "pip")
    resolved = json.loads(run(*pip, "--dry-run", "--report", "-", "torch"))["install"]
    needs_cuda = any(one["metadata"]["name"].startswith("nvidia") for one in resolved)
    if needs_cuda and not cuda:
        raise Skipped("torch comes only with CUDA for this Python here; --cuda allows these gigabytes")
    run(*pip, "torch")
    run(*pip, f"{wheel}[cli]")
    run(python, "-m", "pip", "check")
    if needs_cuda:
        run(*pip, f"{wheel}[eval]")
    else:
        run(*pip, "-r", ROOT / "requirements-eval.txt")
        run(*pip, "--no-deps", "lmms-eval")


def tried(version, wheel, reference, cuda):
    """Versions of what was installed; raises `Skipped`, or `RuntimeError` where anything fails or differs."""
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as folder:
        run(interpreter(version), "-m", "venv", Path(folder) / "venv")
        python = Path(folder) / "venv" / "bin" / "python"
        install(python, wheel, cuda)
        found = observed(python, Path(folder) / "runs")
        for name, expected in reference.items():
            if found[name] != expected:
                raise RuntimeError(f"{name}: {found[name]}\nunder the lock: {expected}")
        freeze = dict(line.split("==") for line in run(python, "-m", "pip", "list", "--format=freeze").splitlines())
        return ", ".join(f"{name} {freeze[name]}" for name in REPORTED if name in freeze)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("versions", nargs="+", metavar="VERSION", help="as in 3.12")
    parser.add_argument("--cuda", action="store_true", help="take a torch with CUDA where there is no other")
    given = parser.parse_args()
    (ROOT / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as folder:
        run(sys.executable, "-m", "build", "--outdir", folder, ROOT)
        (wheel,) = Path(folder).glob("*.whl")
        reference = observed(Path(sys.executable), Path(folder) / "runs")
        print(f"under the lock: {json.dumps(reference)}", flush=True)
        outcomes = {}
        for version in given.versions:
            try:
                outcomes[version] = "passed"
                detail = tried(version, wheel, reference, given.cuda)
            except Skipped as reason:
                outcomes[version], detail = "SKIPPED", reason
            except RuntimeError as error:
                outcomes[version], detail = "FAILED", error
            print(f"Python {version}: {outcomes[version]}: {detail}", flush=True)
    print(", ".join(f"Python {version} {outcome}" for version, outcome in outcomes.items()))
    return 1 if "FAILED" in outcomes.values() else 3 if "SKIPPED" in outcomes.values() else 0


if __name__ == "__main__":
    sys.exit(main())
