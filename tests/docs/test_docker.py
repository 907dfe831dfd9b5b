"""The image's recipe: what it names is there, it holds no secret, and its steps work without a container."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Stage:
    """One FROM with what follows it."""

    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        return [text for word, text in self.steps if word == instruction]

    @property
    def environment(self) -> dict[str, str]:
        return dict(re.findall(r"(\w+)=(\S+)", " ".join(self.all("ENV"))))


def stages() -> list[Stage]:
    """The Dockerfile, a stage at a time; continued lines are one."""
    text = re.sub(r"(?m)^#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    found: list[Stage] = []
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        if not line.strip():
            continue
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            found.append(Stage(base, name))
        else:
            found[-1].steps.append((word, rest.strip()))
    return found


def in_context(path: Path) -> bool:
    """Whether .dockerignore lets the path into the build: the last pattern that fits decides."""
    name = path.relative_to(ROOT).as_posix()
    parts = ["/".join(name.split("/")[: n + 1]) for n in range(len(name.split("/")))]
    ignored = False
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        wanted = pattern.removeprefix("!")
        tail = wanted.removeprefix("**/")
        if any(
            fnmatch.fnmatch(one, wanted) or (tail != wanted and fnmatch.fnmatch(one.split("/")[-1], tail))
            for one in parts
        ):
            ignored = not pattern.startswith("!")
    return not ignored


def test_the_bases_are_pinned_and_the_same() -> None:
    """A version down to the patch, never a moving tag, and a Python that the package takes."""
    bases = {stage.base for stage in stages()}
    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.(1[1-9])\.\d+-slim-\w+", bases.pop())


def test_everything_that_is_copied_is_there_and_comes_along() -> None:
    """Each source exists and is in the build's context; what is taken from a stage is made in it."""
    build, server = stages()
    for text in build.all("COPY"):
        *sources, _ = text.split()
        for source in sources:
            assert (ROOT / source).exists() and in_context(ROOT / source), source
    for text in server.all("COPY"):
        assert text.startswith("--from=build "), text
        assert any(text.split()[1] in step for step in build.all("RUN"))


def test_the_context_holds_what_is_needed_alone() -> None:
    """Files of users, of git and of tools stay outside."""
    for name in (
        ".git/config",
        "keys.json",
        ".env",
        "src/memos/.env.local",
        "memory.db",
        "tests/services.py",
    ):
        assert not in_context(ROOT / name), name
    assert not in_context(ROOT / "src/memos/__pycache__/runtime.cpython-311.pyc")
    package = [
        path for path in (ROOT / "src").rglob("*") if path.is_file() and "__pycache__" not in path.parts
    ]
    assert len(package) > 300
    assert [path for path in package if not in_context(path)] == []


def test_the_extras_are_there() -> None:
    """What is installed beside the package is an extra of it."""
    build, _ = stages()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    [extras] = [text.removeprefix("EXTRAS=") for text in build.all("ARG")]
    assert set(extras.split(",")) <= set(project["optional-dependencies"]) - {"dev", "tools"}
    installs = [step for step in build.all("RUN") if "pip install" in step]
    assert installs == ['/opt/memos/bin/pip install ".[${EXTRAS}]"']


def test_the_server_runs_as_nobody_in_particular() -> None:
    """Not as root, with a volume that is the user's own, a port, a check on /ready and no secret."""
    _, server = stages()
    words = [word for word, _ in server.steps]
    assert server.all("USER") == ["10001:10001"]
    assert words.index("USER") > words.index("COPY")  # what it runs is root's: it cannot change itself
    assert json.loads(server.all("VOLUME")[0]) == [server.environment["MEMOS_HOME"]]
    assert (
        f"--owner=memos --group=memos --mode=0700 {server.environment['MEMOS_HOME']}" in server.all("RUN")[0]
    )
    assert server.all("EXPOSE") == [server.environment["MEMOS_API__PORT"]]
    assert "/ready" in server.all("HEALTHCHECK")[0]
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert not re.search(r"(?i)(key|password|secret|token)\s*=", text)
    assert json.loads(server.all("ENTRYPOINT")[0]) + json.loads(server.all("CMD")[0]) == ["memos", "serve"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_steps_work(tmp_path: Path) -> None:
    """The build's commands in a fresh folder make an environment whose server refuses to start without a key,
    starts with one, and passes the image's own check."""
    build, server = stages()
    context, home, prefix = tmp_path / "context", tmp_path / "data", tmp_path / "memos"
    for text in build.all("COPY"):
        *sources, place = text.split()
        for source in sources:
            target = context / place / (Path(source).name if place == "./" else "")
            if (ROOT / source).is_dir():
                shutil.copytree(
                    ROOT / source,
                    target,
                    ignore=lambda folder, names: [n for n in names if not in_context(Path(folder) / n)],
                )
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / source, target)
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MEMOS_")}
    plain |= build.environment | dict(text.split("=", 1) for text in build.all("ARG"))
    plain["PATH"] = f"{Path(sys.base_prefix) / 'bin'}:{os.environ['PATH']}"
    for step in build.all("RUN"):
        command = step.replace("/opt/memos", str(prefix))
        done = subprocess.run(["bash", "-c", command], cwd=context, env=plain, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    env = server.environment | {"MEMOS_HOME": str(home), "MEMOS_API__PORT": port}
    env["PATH"] = env["PATH"].replace("/opt/memos", str(prefix))
    command = json.loads(server.all("ENTRYPOINT")[0]) + json.loads(server.all("CMD")[0])
    command[0] = str(prefix / "bin" / command[0])
    refused = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1 and "MEMOS_API__KEY" in refused.stderr
    process = subprocess.Popen(command, env=env | {"MEMOS_API__KEY": "k" * 24})
    try:
        check = json.loads(server.all("HEALTHCHECK")[0].partition(" CMD ")[2])
        check[0] = str(prefix / "bin" / check[0])
        until = time.monotonic() + 60
        while subprocess.run(check, env=env, capture_output=True).returncode != 0:
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.2)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert subprocess.run(check, env=env, capture_output=True).returncode != 0
