"""The wheel: built from the sources, installed into an empty environment, and used there."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from memos import dashboard

ROOT = Path(__file__).resolve().parents[2]
SITE_PACKAGES_MB_MAX = 400
WEIGHTS_MB = 90

pytestmark = pytest.mark.timeout(600)


def run(*command: str | Path, home: Path) -> subprocess.CompletedProcess[str]:
    """Run a command away from the sources, with a data directory of its own."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {
        "MEMOS_HOME": str(home),
        "COLUMNS": "200",
    }
    return subprocess.run(
        [str(part) for part in command],
        cwd=home,
        env=environment,
        text=True,
        capture_output=True,
        timeout=540,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    built = run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT, home=folder)
    assert built.returncode == 0, built.stderr[-2000:]
    (file,) = folder.glob("memscheduler-*.whl")
    return file


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", folder / "venv", home=folder)
    python = folder / "venv" / "bin" / "python"
    installed = run(python, "-m", "pip", "install", "--quiet", wheel, home=folder)
    assert installed.returncode == 0, installed.stderr[-2000:]
    return python


def test_wheel_carries_its_data_files(wheel: Path) -> None:
    """The migrations, the embedder's graph, the page and the type marker travel in the wheel, the tests do not."""
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.startswith("memos/memory/migrations/") and name.endswith(".sql") for name in names)
    assert "memos/models/minilm.onnx" in names
    assert "memos/py.typed" in names
    page = {f"memos/dashboard/{name}" for name in dashboard.PATHS.values()}
    assert page and page <= set(names)
    assert not any(name.startswith(("tests/", "benchmarks/")) for name in names)


def test_default_install_is_light_and_has_no_torch(python: Path) -> None:
    """The default install, the weights counted in, stays within its size, and torch is no part of it."""
    site = next((python.parents[1] / "lib").glob("python*/site-packages"))
    size_mb = sum(file.stat().st_size for file in site.rglob("*") if file.is_file()) / 2**20
    assert size_mb + WEIGHTS_MB <= SITE_PACKAGES_MB_MAX
    assert not (site / "torch").exists()
    assert not (site / "transformers").exists()


def test_without_weights_memory_works_and_says_so(python: Path, tmp_path: Path) -> None:
    """A plain install has no weights: it names the command that brings them, and recalls without."""
    memos = python.with_name("memos")
    added = run(memos, "add", "My dog is called Max", "--cube", "c", home=tmp_path)
    assert added.returncode == 0, added.stderr
    assert "memos models install" in added.stderr
    found = run(memos, "search", "what is my dog called", "--cube", "c", home=tmp_path)
    assert found.returncode == 0, found.stderr
    assert "My dog is called Max" in found.stdout
    assert "text and links" in found.stdout


def test_importing_the_router_loads_no_heavy_vendor(python: Path, tmp_path: Path) -> None:
    """Importing the documented module costs nothing: no web framework, no numpy, no runtime, no file."""
    code = (
        "import sys, memos.api.routers.server_router as r; "
        "print(sorted(m for m in ('fastapi','numpy','onnxruntime','openai','pydantic_settings') if m in sys.modules))"
    )
    ran = run(python, "-c", code, home=tmp_path)
    assert ran.stdout.strip() == "[]", ran.stderr
    assert list(tmp_path.iterdir()) == []
