"""The files of the dashboard: which there are, how they are served, and that none reaches elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files

import pytest
from fastapi.testclient import TestClient

from memos import dashboard
from memos.api.access import Role
from memos.api.app import create_app
from memos.api.keys import KeyFile
from memos.runtime import Runtime


@pytest.fixture
def client(runtime: Runtime) -> Iterator[TestClient]:
    with TestClient(create_app(runtime)) as opened:
        yield opened


def texts() -> dict[str, str]:
    return {name: dashboard.read(name).decode() for name in dashboard.PATHS.values()}


def test_every_file_is_served_and_no_other() -> None:
    """The table of paths names every file of the folder."""
    there = {one.name for one in files("memos.dashboard").iterdir() if one.name[0] != "_"}
    assert there == set(dashboard.PATHS.values())


def test_the_page_comes_under_a_strict_policy(client: TestClient) -> None:
    """Every file carries the policy without anything inline, its type, and a tag that is answered by 304."""
    for path, name in dashboard.PATHS.items():
        answer = client.get(path)
        assert answer.status_code == 200 and answer.headers["content-type"] == dashboard.media_type(name)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src 'self'" in policy
        assert "unsafe" not in policy and "*" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        again = client.get(path, headers={"if-none-match": answer.headers["etag"]})
        assert again.status_code == 304 and again.content == b""


def test_the_page_needs_no_key_and_shows_nothing_without(client: TestClient, runtime: Runtime) -> None:
    """With keys on, the files are open, and everything behind them is closed."""
    KeyFile(runtime.settings.keys_path).create("k", role=Role.ADMIN, users=None, cubes=None)
    assert all(client.get(path).status_code == 200 for path in dashboard.PATHS)
    for path in (
        "product/me",
        "product/scheduler/queue",
        "product/cubes",
        "product/load",
        "dashboard/other.js",
    ):
        assert client.get(f"/{path}").status_code == 401


def test_no_file_names_another_address() -> None:
    """The page loads and asks nothing outside of its server; the one URL is the name of SVG."""
    found = {url for text in texts().values() for url in re.findall(r"https?://[^\s\"'<>)]+", text)}
    assert found == {"http://www.w3.org/2000/svg"}
    assert not any(re.search(r"url\(|@import|//cdn", text) for text in texts().values())


def test_no_script_parses_markup_or_text_as_code() -> None:
    """What memories say goes in as text: no way to put in markup is used, and nothing stands inline."""
    banned = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|DOMParser|srcdoc"
    for name, text in texts().items():
        assert not re.search(banned, text), name
    page = texts()["index.html"]
    assert not re.search(r"\son\w+=|\sstyle=|<style|<script(?![^>]* src=)", page)


def test_the_scripts_import_files_that_are_there() -> None:
    """Each import of a script is a file of the table."""
    for name, text in texts().items():
        for imported in re.findall(r'from "\./([\w.]+)"', text):
            assert f"/dashboard/{imported}" in dashboard.PATHS, (name, imported)
