"""API keys: kept as hashes, good for their scope and time, gone with the next request after a revocation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from memos import metrics
from memos.api import auth
from memos.api.access import OPEN, Principal, Role
from memos.api.app import create_app
from memos.api.keys import KeyFile
from memos.api.rate import RateLimits
from memos.cli.main import app as command_line
from memos.errors import ConfigError, InvalidInput
from memos.runtime import Runtime, build
from memos.settings import Settings
from memos.testing import ManualClock

from .conftest import settings_in

NOW = datetime(2026, 5, 1, tzinfo=UTC)


def bearer(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


@pytest.fixture
def keys(runtime: Runtime) -> KeyFile:
    return KeyFile(runtime.settings.keys_path)


@pytest.fixture
def client(runtime: Runtime) -> Iterator[TestClient]:
    with TestClient(create_app(runtime)) as opened:
        yield opened


def test_a_key_is_found_by_its_text_and_kept_as_a_hash(tmp_path: Path) -> None:
    """The file holds neither the key nor anything it could be made of, and only its owner may read it."""
    keys = KeyFile(tmp_path / "keys.json")
    made, text = keys.create("phone", role=Role.USER, users=("alice",), cubes=("team",), rate_per_minute=5)
    assert keys.find(text) == made
    assert made.principal == Principal(made.id, Role.USER, frozenset({"alice"}), frozenset({"team"}))
    kept = keys.path.read_text()
    assert text not in kept and text.rpartition("_")[2] not in kept
    assert keys.path.stat().st_mode & 0o777 == 0o600
    wrong = text[:-1] + ("A" if text[-1] != "A" else "B")
    assert [keys.find(one) for one in (wrong, text.upper(), "", "memos__", text + "x")] == [None] * 5


def test_a_revoked_and_an_expired_key_open_nothing(tmp_path: Path) -> None:
    """Other readers of the file see a revocation at once; an expiry needs nobody."""
    moment = [NOW]
    keys = KeyFile(tmp_path / "keys.json", now=lambda: moment[0])
    other = KeyFile(tmp_path / "keys.json", now=lambda: moment[0])
    first, text = keys.create("a", role=Role.ADMIN, users=None, cubes=None)
    _, short = keys.create("b", role=Role.ADMIN, users=None, cubes=None, expires_at=NOW + timedelta(days=1))
    assert other.find(text) == first and other.find(short) is not None
    keys.revoke(first.id)
    assert other.find(text) is None
    moment[0] = NOW + timedelta(days=1)
    assert other.find(short) is None
    with pytest.raises(InvalidInput, match="nobody"):
        keys.revoke("nobody")


def test_a_key_for_nobody_is_refused(tmp_path: Path) -> None:
    """A key that is no admin's names what it is for."""
    with pytest.raises(InvalidInput, match="needs users or cubes"):
        KeyFile(tmp_path / "keys.json").create("x", role=Role.USER, users=(), cubes=())


@pytest.mark.parametrize("kept", ["", "{", '{"version": 1}', '{"version": 1, "keys": [{"id": "x"}]}', "[]"])
def test_a_damaged_file_lets_nobody_in(runtime: Runtime, keys: KeyFile, kept: str) -> None:
    """While the keys cannot be read every request but health is refused, and no key is made over them."""
    _, text = keys.create("a", role=Role.ADMIN, users=None, cubes=None)
    with TestClient(create_app(runtime)) as client:
        search = {"user_id": "u", "query": "q"}
        assert client.post("/product/search", json=search, headers=bearer(text)).status_code == 200
        keys.path.write_text(kept)
        refused = client.post("/product/search", json=search, headers=bearer(text))
        assert (refused.status_code, refused.json()["data"]) == (503, None)
        assert client.get("/health").status_code == 200
        with pytest.raises(ConfigError):
            keys.create("b", role=Role.ADMIN, users=None, cubes=None)
        keys.path.unlink()  # not even its loss opens a server that once had keys
        assert client.post("/product/search", json=search).status_code == 401


def test_the_first_key_closes_the_server(client: TestClient, keys: KeyFile) -> None:
    """On loopback nothing is asked until there is a key; from then on it is, everywhere."""
    search = {"user_id": "u", "query": "q"}
    assert client.post("/product/search", json=search).status_code == 200
    _, text = keys.create("a", role=Role.USER, users=("u",), cubes=())
    for path in ("/metrics", "/openapi.json", "/docs", "/product/scheduler/allstatus", "/nowhere"):
        assert client.get(path).status_code == 401, path
    assert client.post("/product/search", json=search).status_code == 401
    assert client.post("/product/search", json=search, headers=bearer(text)).status_code == 200


def test_off_loopback_a_kept_key_is_as_good_as_the_one_of_the_settings(tmp_path: Path) -> None:
    """Without any key the server does not start where others can reach it; one that is kept is enough."""
    keys = KeyFile(tmp_path / "keys.json")
    with pytest.raises(ConfigError, match="memos keys create"):
        auth.check_exposure("0.0.0.0", None, keys)
    keys.create("a", role=Role.ADMIN, users=None, cubes=None)
    auth.check_exposure("0.0.0.0", None, keys)


def test_a_name_of_a_stranger_is_not_answered_without_keys(client: TestClient) -> None:
    """A web page that points its own name at this machine reads nothing; names of the machine are fine."""
    for name in ("evil.example.org", "evil.example.org:8000", "localhost.evil.org", "127.0.0.1.nip.io"):
        answer = client.get("/product/scheduler/allstatus", headers={"host": name})
        assert (answer.status_code, answer.json()["data"]) == (421, None), name
    for name in ("localhost:8000", "127.0.0.1", "[::1]:8000", "memos", "a.localhost"):
        answer = client.get("/product/scheduler/allstatus", headers={"host": name})
        assert answer.status_code == 200, name


def test_named_hosts_are_answered(tmp_path: Path) -> None:
    """A name of the settings is as good as one of the machine's."""
    gate = auth.Gate(host="127.0.0.1", hosts=["memory.example.org"])
    assert gate.admit("/x", [(b"host", b"memory.example.org:80")]) == OPEN
    assert isinstance(gate.admit("/x", [(b"host", b"other.example.org")]), auth.Refusal)


def test_a_key_is_asked_to_wait_above_its_rate(runtime: Runtime, keys: KeyFile) -> None:
    """A key's own limit counts for it alone, with a truthful Retry-After."""
    _, slow = keys.create("slow", role=Role.USER, users=("u",), cubes=(), rate_per_minute=2)
    _, fast = keys.create("fast", role=Role.USER, users=("u",), cubes=(), rate_per_minute=0)
    before = metrics.REFUSALS.value(reason="rate")
    with TestClient(create_app(runtime)) as client:
        url = "/product/scheduler/status?user_id=u"
        answers = [client.get(url, headers=bearer(slow)) for _ in range(3)]
        assert [one.status_code for one in answers] == [200, 200, 429]
        assert 1 <= int(answers[2].headers["retry-after"]) <= 30
        assert answers[2].json()["code"] == 429
        assert [client.get(url, headers=bearer(fast)).status_code for _ in range(5)] == [200] * 5
    assert metrics.REFUSALS.value(reason="rate") - before == 1


def test_a_bucket_fills_again() -> None:
    """A minute's worth at once, then one request as often as the rate allows."""
    clock = ManualClock()
    limits = RateLimits(clock)
    assert [limits.wait_s("k", 60) for _ in range(60)] == [0.0] * 60
    assert limits.wait_s("k", 60) == pytest.approx(1.0)
    clock.advance(1.0)
    assert limits.wait_s("k", 60) == 0.0 and limits.wait_s("k", 60) > 0
    assert limits.wait_s("other", 60) == 0.0 and limits.wait_s("k", 0) == 0.0


def test_web_pages_are_kept_out_unless_they_are_named(tmp_path: Path) -> None:
    """No CORS header by default; a named page may ask, its browser's question needs no key."""
    asked = {"origin": "https://app.example.org", "access-control-request-method": "POST"}
    with build(settings_in(tmp_path / "closed"), start=False) as built:
        answer = TestClient(create_app(built)).options("/product/search", headers=asked)
        assert "access-control-allow-origin" not in answer.headers
    named = settings_in(tmp_path / "open", cors_origins=("https://app.example.org",), key=None)
    with build(named, start=False) as built:
        KeyFile(named.keys_path).create("a", role=Role.ADMIN, users=None, cubes=None)
        client = TestClient(create_app(built))
        answer = client.options("/product/search", headers=asked)
        assert answer.headers["access-control-allow-origin"] == "https://app.example.org"
        other = client.options("/product/search", headers={**asked, "origin": "https://evil.example.org"})
        assert "access-control-allow-origin" not in other.headers


def test_the_command_line_makes_lists_and_revokes(clean_environment: Path) -> None:
    """What `memos keys` does to the file is what a server sees."""
    runner = CliRunner()
    made = runner.invoke(
        command_line, ["keys", "create", "phone", "--user", "alice", "--cube", "team", "--days", "3"]
    )
    assert made.exit_code == 0, made.output
    keys = KeyFile(Settings.load().keys_path)
    [known] = keys.all()
    text = next(line for line in made.output.splitlines() if line.startswith("memos_"))
    assert keys.find(text) == known
    assert (known.name, known.role, known.users, known.cubes) == ("phone", Role.USER, ("alice",), ("team",))
    listed = json.loads(runner.invoke(command_line, ["keys", "list", "--json"]).output)
    assert (listed["id"], listed["state"]) == (known.id, "good") and "hash" not in listed
    assert runner.invoke(command_line, ["keys", "revoke", known.id]).exit_code == 0
    assert keys.find(text) is None
    assert "revoked" in runner.invoke(command_line, ["keys", "list"]).output
    assert runner.invoke(command_line, ["keys", "create", "nobody"]).exit_code != 0
    admin = runner.invoke(command_line, ["keys", "create", "root", "--role", "admin"])
    assert admin.exit_code == 0 and keys.all()[-1].principal.is_admin
