"""Every package that a command of ours installs is pinned, for every supported Python."""

import importlib.metadata
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from source import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LOCKS = ROOT / "locks"
CUDA = re.compile(r"cuda|nvidia|triton")  # what torch pins for itself, where it needs them
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
APART = ("vllm", "demo")  # in environments of their own: one pins torch and transformers, one takes another Pillow
PYTHONS = sorted(path.stem.removeprefix("python") for path in LOCKS.glob("python*.txt"))


def requirements(name: str) -> list[str]:
    lines = (line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines())
    return [line for line in lines if line]


@cache
def pins(python: str, kind: str = "") -> dict[str, Version]:
    pinned = [line.split("==") for line in requirements(f"locks/{kind}python{python}.txt")]
    return {canonicalize_name(name): Version(version) for name, version in pinned}


def declared() -> list[Requirement]:
    """What pyproject.toml and the files beside it ask for by name, but for seeless itself."""
    lines = [
        *PROJECT["project"]["dependencies"],
        *(line for name in sorted({*EXTRAS} - {*APART}) for line in EXTRAS[name]),
    ]
    lines += [*PROJECT["build-system"]["requires"], *requirements("requirements-eval.txt")]
    lines += [*requirements("locks/build.in"), *requirements("locks/torch.in")]
    return [one for one in map(Requirement, lines) if one.name != "seeless"]


def test_each_supported_python_has_a_lock():
    classifiers = PROJECT["project"]["classifiers"]
    supported = re.findall(r"Python :: (3\.\d+)", "\n".join(classifiers))
    assert supported == PYTHONS and PYTHONS[0] == PROJECT["project"]["requires-python"].removeprefix(">=")


@pytest.mark.parametrize("kind", ["", "demo-"])
@pytest.mark.parametrize("python", PYTHONS)
def test_a_lock_is_of_exact_versions_and_leaves_cuda_to_torch(python, kind):
    for line in requirements(f"locks/{kind}python{python}.txt"):
        assert re.fullmatch(r"[a-z0-9][a-z0-9.-]*==[0-9][0-9a-z.]*", line), line
    assert [name for name in pins(python, kind) if CUDA.match(name)] == []


@pytest.mark.parametrize("python", PYTHONS)
def test_the_page_has_locks_of_its_own_with_the_same_torch(python):
    for one in map(Requirement, [*EXTRAS["demo"], *EXTRAS["video"], *EXTRAS["cli"], *requirements("locks/page.in")]):
        if one.name != "seeless":
            pinned = pins(python, "demo-").get(canonicalize_name(one.name))
            assert pinned is not None and one.specifier.contains(pinned), f"{one}: {pinned}"
    assert pins(python, "demo-")["torch"] == pins(python)["torch"]
    assert pins(python, "demo-")["transformers"] == pins(python)["transformers"]


@pytest.mark.parametrize("python", PYTHONS)
def test_what_is_asked_for_is_pinned_within_its_bounds(python):
    """Fails after a change of pyproject.toml that `make lock` has not followed."""
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    for one in declared():
        if one.marker is None or one.marker.evaluate(environment):
            pinned = pins(python).get(canonicalize_name(one.name))
            assert pinned is not None and one.specifier.contains(pinned, prereleases=True), f"{one}: {pinned}"


def test_the_light_way_to_lmms_eval_has_the_bounds_of_the_extra():
    """`pip install --no-deps lmms-eval` heeds no bound, so requirements-eval.txt must say each."""
    light = {one.name: one.specifier for one in map(Requirement, requirements("requirements-eval.txt"))}
    bounds = [one for one in map(Requirement, EXTRAS["eval"]) if "<" in str(one.specifier)]
    assert bounds and all(light[one.name] == one.specifier for one in bounds)


def reachable(names: list[str]) -> dict[str, Version]:
    """The installed packages among these and all that they need."""
    found, waiting = {}, [Requirement(name) for name in names]
    asked = set()
    while waiting:
        one = waiting.pop()
        name, extras = canonicalize_name(one.name), {"", *one.extras}
        if (name, frozenset(extras)) in asked:
            continue
        asked.add((name, frozenset(extras)))
        try:
            installed = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        found[name] = Version(installed.version)
        for text in installed.requires or ():
            needed = Requirement(text)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(needed)
    return found


def test_what_is_installed_here_is_what_the_lock_says():
    config = Path(sys.prefix) / "pip.conf"
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if not config.is_file() or (LOCKS / f"python{python}.txt").as_uri() not in config.read_text():
        pytest.skip("this environment was not made by `make demo` or `make test`")
    installed = reachable([str(one) for one in declared()])
    here = {name: Version(version.public) for name, version in installed.items() if not CUDA.match(name)}
    assert len(here) > 50 and {name: pins(python).get(name) for name in here} == here


def test_a_python_without_a_lock_is_refused_by_name(monkeypatch):
    monkeypatch.syspath_prepend(str(LOCKS))
    from use_lock import lock_of

    assert lock_of((3, 11, 7)) == LOCKS / "python3.11.txt"
    with pytest.raises(SystemExit, match=r"Python 3\.9 has no lock, 3\.10, 3\.11, 3\.12, 3\.13 have"):
        lock_of((3, 9, 18))


def test_pip_heeds_the_lock_of_an_environment_whose_folder_has_a_blank(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(LOCKS))
    from use_lock import write

    lock = tmp_path / "my locks" / "python3.txt"
    lock.parent.mkdir()
    lock.write_text("a-package==1.0\n")
    write(tmp_path / "my env", lock)
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-index", "a-package==2.0"]
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "my env" / "pip.conf"))
    monkeypatch.delenv("PIP_CONSTRAINT", raising=False)
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "a-package==1.0" in done.stdout + done.stderr


def test_the_workflow_runs_every_python_and_targets_that_exist():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())
    commands = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?<= )[a-z-]+(?= |$)", "\n".join(commands), re.MULTILINE))
    assert {"test", "test-newest", "test-wheel"} <= named <= targets
    assert all(command.split()[0] == "make" for command in commands)
    for job in ("lock", "wheel"):
        assert workflow["jobs"][job]["strategy"]["matrix"]["python"] == PYTHONS
