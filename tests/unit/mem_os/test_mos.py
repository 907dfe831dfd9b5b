"""MOS: the library facade stores, recalls, changes and answers, each user on their own cubes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from memos import runtime as composition
from memos.configs.mem_os import MOSConfig
from memos.errors import ConfigError, CubeNotFound, InvalidInput, ItemGone, ItemNotFound, MemosError
from memos.mem_cube.general import GeneralMemCube
from memos.mem_os import MOS
from memos.memory.cube import NaiveMemCube
from memos.memory.item import MemoryItem, MemoryKind
from memos.memory.store import AddItems
from memos.memory.textual import TextualMemoryItem
from memos.runtime import Runtime, build
from memos.settings import ModelSettings, Settings
from memos.testing import run_until_idle

TALK = [
    {"role": "user", "content": "I just adopted a golden retriever puppy named Max."},
    {"role": "assistant", "content": "Congratulations on the new puppy!"},
]


def texts(result: Any, area: str = "text_mem") -> dict[str, list[str]]:
    return {one["cube_id"]: [memory.memory for memory in one["memories"]] for one in result[area]}


def test_what_is_added_is_found_in_its_cube(mos: MOS) -> None:
    """A conversation is recalled from the cube it was added to, in the documented buckets."""
    ids = mos.add(messages=TALK, user_id="ann", session_id="s1")
    mos.add(memory_content="The sprint ends on Friday.", user_id="ann", mem_cube_id="work")
    found = mos.search("What is the puppy's name?", user_id="ann", top_k=1)
    assert set(found) == {"text_mem", "act_mem", "para_mem", "pref_mem"}
    assert texts(found)["pets"] == [TALK[0]["content"]]
    assert found["act_mem"] == [] and found["para_mem"] == []
    assert texts(mos.search("sprint", user_id="ann", install_cube_ids=["work"])) == {
        "work": ["The sprint ends on Friday."]
    }
    [stored] = mos.runtime.store.get(ids[:1])
    assert (stored.cube_id, stored.user_id, stored.session_id) == ("pets", "ann", "s1")


def test_adding_hands_a_task_to_the_scheduler(mos: MOS) -> None:
    """The same path as the API: an `add` task follows, and its web log is written."""
    mos.add(messages=TALK, user_id="ann")
    assert mos.mem_scheduler.get_tasks_status()["remaining"] == 1
    while mos.mem_scheduler.run_once():
        pass
    assert "addMemory" in {log["label"] for log in mos.mem_scheduler.get_web_log_messages()}


def test_preferences_have_their_own_bucket(mos: MOS) -> None:
    """A preference is in `pref_mem` and takes no place among the texts."""
    cube = GeneralMemCube("pets", runtime=mos.runtime)
    assert cube.pref_mem is not None
    cube.pref_mem.add(["Ann prefers walks in the morning."], user_id="ann")
    mos.add(memory_content="Ann walks along the canal.", user_id="ann")
    found = mos.search("When does Ann like to walk?", user_id="ann", install_cube_ids=["pets"])
    assert texts(found, "pref_mem") == {"pets": ["Ann prefers walks in the morning."]}
    assert texts(found) == {"pets": ["Ann walks along the canal."]}
    everything = mos.get_all("pets", user_id="ann")
    assert texts(everything, "pref_mem") == texts(found, "pref_mem")
    assert texts(everything) == texts(found)


def test_preferences_can_be_left_out(runtime: Runtime) -> None:
    """With `enable_preference_memory` off the bucket stays empty."""
    mos = MOS(MOSConfig(enable_preference_memory=False), runtime=runtime)
    mos.register_mem_cube("pets")
    mos.add(memory_content="Ann walks along the canal.")
    assert mos.search("walk")["pref_mem"] == mos.get_all()["pref_mem"] == []


def test_one_memory_is_read_changed_and_deleted(mos: MOS) -> None:
    """`get`, `update` and `delete` act on the stored row; the journal says who did it."""
    [name] = mos.add(memory_content="Max eats kibble.", user_id="ann")
    assert mos.get("pets", name, user_id="ann").memory == "Max eats kibble."
    changed = mos.update("pets", name, TextualMemoryItem(id=name, memory="Max eats rice."), user_id="ann")
    assert changed.memory == "Max eats rice." == mos.runtime.store.get([name])[0].memory
    mos.update("pets", name, "Max eats salmon.", user_id="ann")
    assert texts(mos.search("salmon", user_id="ann"))["pets"] == ["Max eats salmon."]
    mos.delete("pets", name, user_id="ann")
    with pytest.raises(ItemGone):
        mos.get("pets", name, user_id="ann")
    rows = mos.runtime.store.journal(item_id=name)
    assert [(row.op, row.cause.user_id) for row in rows] == [
        ("delete", "ann"),
        ("update", "ann"),
        ("update", "ann"),
        ("add", "ann"),
    ]


def test_a_cube_is_emptied_only_by_name(mos: MOS) -> None:
    """`delete_all` of a user with several cubes wants one named, and empties that alone, every kind of it."""
    mos.add(messages=TALK, user_id="ann")
    mos.add(memory_content="The sprint ends on Friday.", user_id="ann", mem_cube_id="work")
    mos.runtime.store.sizes("pets")
    with pytest.raises(InvalidInput, match="name one"):
        mos.delete_all(user_id="ann")
    assert mos.delete_all("pets", user_id="ann") == 2
    assert mos.runtime.store.sizes("pets").long_term == 0
    assert mos.runtime.store.sizes("work").long_term == 1
    mos.add(memory_content="The beans are up.", user_id="ben")
    assert mos.delete_all(user_id="ben") == 1


def test_chat_answers_from_memory_and_remembers_the_turn(mos: MOS) -> None:
    """The answer quotes what was stored, query and answer go to the scheduler, the turn is stored."""
    mos.add(messages=TALK, user_id="ann")
    answer = mos.chat("What is the puppy's name?", user_id="ann", session_id="evening")
    assert "Max" in answer
    while mos.mem_scheduler.run_once():
        pass
    labels = [log["label"] for log in mos.mem_scheduler.get_web_log_messages()]
    assert labels.count("addMessage") == 4 and "scheduleMemory" in labels
    working = mos.runtime.store.working("pets")
    assert TALK[0]["content"] in [item.memory for item in working.items]
    stored = texts(mos.get_all("pets", user_id="ann"))["pets"]
    assert "What is the puppy's name?" in stored


def test_chat_reads_all_cubes_and_writes_to_the_first(mos: MOS) -> None:
    """A question is answered out of any of the user's cubes; the turn goes to the first registered."""
    mos.add(memory_content="The sprint ends on Friday.", user_id="ann", mem_cube_id="work")
    assert "Friday" in mos.chat("When does the sprint end?", user_id="ann")
    assert mos.runtime.store.sizes("work").long_term == 1
    assert mos.runtime.store.sizes("pets").long_term == 2


def test_a_chat_keeps_its_history_until_cleared(mos: MOS) -> None:
    """What was said is kept per user and session, and cleared for one user alone."""
    mos.chat("Who is Max?", user_id="ann", session_id="s")
    mos.chat("Who is Coco?", user_id="ben")
    assert [one.role for one in mos._histories.of("ann", "s")] == ["user", "assistant"]
    mos.clear_messages("ann")
    assert mos._histories.of("ann", "s") == () != mos._histories.of("ben", "")


CALLS: dict[str, Any] = {
    "add": lambda mos, who, cube: mos.add(memory_content="x", user_id=who, mem_cube_id=cube),
    "search": lambda mos, who, cube: mos.search("x", user_id=who, install_cube_ids=[cube]),
    "get_all": lambda mos, who, cube: mos.get_all(cube, user_id=who),
    "get": lambda mos, who, cube: mos.get(cube, "id", user_id=who),
    "update": lambda mos, who, cube: mos.update(cube, "id", "new", user_id=who),
    "delete": lambda mos, who, cube: mos.delete(cube, "id", user_id=who),
    "delete_all": lambda mos, who, cube: mos.delete_all(cube, user_id=who),
    "chat": lambda mos, who, cube: mos.chat("x", user_id=who, mem_cube_id=cube),
    "dump": lambda mos, who, cube: mos.dump("/nowhere", who, cube),
    "share": lambda mos, who, cube: mos.share_cube_with_user(cube, "ben", user_id=who),
    "unregister": lambda mos, who, cube: mos.unregister_mem_cube(cube, who),
}


@pytest.mark.parametrize("call", sorted(CALLS))
def test_only_registered_cubes_can_be_used(call: str, mos: MOS) -> None:
    """Every call refuses a cube of somebody else exactly as one that does not exist, and an unknown user."""
    mos.add(memory_content="The beans are up.", user_id="ben")
    seq = mos.runtime.store.seq("garden")
    with pytest.raises(CubeNotFound, match=r"garden.*not registered.*ann"):
        CALLS[call](mos, "ann", "garden")
    with pytest.raises(CubeNotFound, match=r"nowhere.*not registered.*ann"):
        CALLS[call](mos, "ann", "nowhere")
    with pytest.raises(InvalidInput, match=r"'eve' is not known.*create_user"):
        CALLS[call](mos, "eve", "garden")
    assert mos.runtime.store.seq("garden") == seq


def test_a_memory_of_another_cube_cannot_be_reached_through_ones_own(mos: MOS) -> None:
    """An id from another cube is not found in the user's own."""
    [theirs] = mos.add(memory_content="The beans are up.", user_id="ben")
    for reach in (
        lambda: mos.get("pets", theirs, user_id="ann"),
        lambda: mos.update("pets", theirs, "new", user_id="ann"),
        lambda: mos.delete("pets", theirs, user_id="ann"),
    ):
        with pytest.raises(ItemNotFound):
            reach()
    assert mos.get("garden", theirs, user_id="ben").memory == "The beans are up."


def test_a_user_without_cubes(mos: MOS) -> None:
    """Without a registered cube there is nothing to add to or search, and the error says what to do."""
    mos.create_user("eve")
    for call in (lambda: mos.add(memory_content="x", user_id="eve"), lambda: mos.search("x", user_id="eve")):
        with pytest.raises(CubeNotFound, match="register_mem_cube"):
            call()


def test_sharing_and_taking_back(mos: MOS) -> None:
    """A shared cube is the other user's to use until it is taken from them; its memories stay."""
    mos.add(messages=TALK, user_id="ann")
    assert mos.share_cube_with_user("pets", "ben", user_id="ann")
    assert "Max" in str(texts(mos.search("puppy", user_id="ben", install_cube_ids=["pets"])))
    mos.unregister_mem_cube("pets", "ben")
    with pytest.raises(CubeNotFound):
        mos.search("puppy", user_id="ben", install_cube_ids=["pets"])
    assert mos.runtime.store.sizes("pets").long_term == 2


def test_a_shared_cube_shares_no_preferences(mos: MOS) -> None:
    """A preference is about its owner: another user of the cube is not shown it as theirs."""
    mos.add(messages=TALK, user_id="ann")
    mos.share_cube_with_user("pets", "ben", user_id="ann")
    likes = MemoryItem(
        id="p",
        cube_id="pets",
        user_id="ann",
        memory="The user prefers tea",
        kind=MemoryKind.PREFERENCE,
        raw=False,
    )
    indexed = mos.runtime.indexer.index([likes], participants=frozenset())
    mos.runtime.store.apply([AddItems(tuple(indexed))])
    assert texts(mos.search("tea", user_id="ann"), "pref_mem")["pets"] == ["The user prefers tea"]
    assert texts(mos.search("tea", user_id="ben", install_cube_ids=["pets"]), "pref_mem")["pets"] == []


def test_users(mos: MOS) -> None:
    """Creating a user again changes nothing; the lists say who there is and what their cubes hold."""
    mos.add(messages=TALK, user_id="ann")
    assert mos.create_user("ben", user_name="Other") == "ben"
    assert [(user["user_id"], user["user_name"]) for user in mos.list_users()] == [
        ("root", "root"),
        ("ann", "ann"),
        ("ben", "Ben"),
    ]
    assert mos.get_user_info("ann")["accessible_cubes"] == [
        {"cube_id": "pets", "memories": 2},
        {"cube_id": "work", "memories": 0},
    ]
    for name in ("", "a\x00b", "x" * 600):
        with pytest.raises(InvalidInput):
            mos.create_user(name)


def test_a_cube_is_registered_by_object(mos: MOS, tmp_path: Path) -> None:
    """A cube object brings its id; one of another store or with another id is refused."""
    cube = GeneralMemCube("attic", runtime=mos.runtime)
    cube.text_mem.add(["The lamp is green."], user_id="ann")
    assert mos.register_mem_cube(cube, user_id="ann") == "attic"
    assert texts(mos.search("lamp", user_id="ann"))["attic"] == ["The lamp is green."]
    parts = mos.runtime
    naive = NaiveMemCube("n", store=parts.store, indexer=parts.indexer, retriever=parts.retriever)
    assert mos.register_mem_cube(naive, "n", "ann") == "n"
    with pytest.raises(InvalidInput, match="attic"):
        mos.register_mem_cube(cube, "cellar", "ann")
    settings = Settings(home=tmp_path / "other", models=ModelSettings(embedder="none"))
    with build(settings, start=False) as other, pytest.raises(InvalidInput, match="another store"):
        mos.register_mem_cube(GeneralMemCube("attic", runtime=other), user_id="ann")


def test_a_cube_is_registered_by_folder(mos: MOS, tmp_path: Path) -> None:
    """A dumped folder is loaded once; later it is what the store holds, with what happened since."""
    mos.add(messages=TALK, user_id="ann")
    mos.dump(tmp_path / "out", "ann", "pets")
    settings = Settings(home=tmp_path / "other", models=ModelSettings(embedder="none"))
    with build(settings, start=False) as other:
        fresh = MOS(runtime=other)
        assert fresh.register_mem_cube(str(tmp_path / "out")) == "pets"
        fresh.add(memory_content="Max met Coco.")
        again = MOS(runtime=other)
        assert again.register_mem_cube(tmp_path / "out") == "pets"
        assert len(texts(again.get_all())["pets"]) == 3
        assert "Max met Coco." in texts(again.get_all())["pets"]
        with pytest.raises(InvalidInput, match="exists already"):
            again.register_mem_cube(tmp_path / "out", "copy")


@pytest.mark.parametrize("given", ["", "/nowhere/at/all", "./nowhere", Path("nowhere"), 5, None, "a\x00b"])
def test_cubes_that_cannot_be_registered(given: Any, mos: MOS) -> None:
    """No name, a path without a cube and another type are refused."""
    with pytest.raises(InvalidInput):
        mos.register_mem_cube(given, user_id="ann")


def test_cube_names_may_hold_any_character(mos: MOS) -> None:
    """`:`, `/` and other scripts are fine in a cube's name."""
    assert mos.register_mem_cube("team/pets: 猫", user_id="ann") == "team/pets: 猫"
    mos.add(memory_content="The cat is grey.", user_id="ann", mem_cube_id="team/pets: 猫")
    assert texts(mos.get_all("team/pets: 猫", user_id="ann")) == {"team/pets: 猫": ["The cat is grey."]}


def test_a_document_is_one_text_file_of_the_caller(mos: MOS, tmp_path: Path) -> None:
    """`doc_path` stores the file's text, marked as a document with the file's name and the place in it."""
    file = tmp_path / "notes.md"
    file.write_text("# Lisbon\nThe tram 28 starts at Martim Moniz.\n", encoding="utf-8")
    ids = mos.add(doc_path=file, user_id="ann")
    [stored] = mos.runtime.store.get(ids)
    assert stored.sources[0].type == "document"
    assert (stored.extra["file"], stored.extra["document"]["headings"]) == ("notes.md", ["Lisbon"])
    assert stored.extra["file_id"] == stored.session_id == stored.extra["document"]["id"]
    assert ids[0] in {one.id for one in mos.search("tram 28", user_id="ann")["text_mem"][0]["memories"]}


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.pdf", b"text"), ("a", b"\x7fELF"), ("a.txt", b"\xff\xfe\x00"), ("a.txt", b"  "), ("b.md", None)],
)
def test_documents_that_cannot_be_read(name: str, content: bytes | None, mos: MOS, tmp_path: Path) -> None:
    """Another type, bytes that are no text, an empty and a missing file are refused."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidInput):
        mos.add(doc_path=tmp_path / name, user_id="ann")
    assert mos.runtime.store.sizes("pets").long_term == 0


def test_a_folder_and_a_huge_file_are_no_documents(
    mos: MOS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder with a fitting name and a file over the bound are refused."""
    (tmp_path / "folder.md").mkdir()
    (tmp_path / "big.md").write_text("word " * 10)
    small = mos.runtime.settings.documents.model_copy(update={"bytes_max": 20})
    settings = mos.runtime.settings.model_copy(update={"documents": small})
    monkeypatch.setattr(mos, "runtime", dataclasses.replace(mos.runtime, settings=settings))
    for name in ("folder.md", "big.md"):
        with pytest.raises(InvalidInput, match=name):
            mos.add(doc_path=tmp_path / name, user_id="ann")


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"messages": TALK, "memory_content": "x"},
        {"messages": []},
        {"messages": "  "},
        {"memory_content": ""},
        {"messages": [{"role": "user", "content": "a\x00b"}]},
        {"messages": TALK, "session_id": "s\x00"},
    ],
)
def test_additions_that_cannot_work(given: dict[str, Any], mos: MOS) -> None:
    """Nothing, too much, empty and malformed content is refused; nothing is stored."""
    with pytest.raises(InvalidInput):
        mos.add(user_id="ann", **given)
    assert mos.runtime.store.sizes("pets").long_term == 0


def test_the_process_shares_one_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a configuration MOS is a view of the process's runtime and does not close it."""
    monkeypatch.setenv("MEMOS_MODELS__EMBEDDER", "none")
    try:
        with MOS() as mos:
            assert mos.runtime is composition.current()
            mos.register_mem_cube("pets")
            [name] = mos.add(memory_content="Max is a dog.")
        assert composition.current().store.get([name])[0].kind is MemoryKind.LONG_TERM
        assert composition.current().scheduler._running
    finally:
        composition.reset()


def test_a_configured_mos_owns_its_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration builds a runtime of its own: scheduler, switch and limits follow it, `close` closes it."""
    monkeypatch.setenv("MEMOS_MODELS__EMBEDDER", "none")
    scheduler = {"backend": "general_scheduler", "config": {"top_k": 2, "db_path": str(tmp_path / "m.db")}}
    with MOS(
        {"user_id": "ann", "top_k": 1, "enable_mem_scheduler": False, "mem_scheduler": scheduler}
    ) as mos:
        assert mos.mem_scheduler.top_k == 2
        assert not mos.mem_scheduler._running
        mos.register_mem_cube("pets")
        mos.add(messages=TALK)
        assert len(texts(mos.search("puppy"))["pets"]) == 1
        assert mos.mem_scheduler.get_tasks_status()["remaining"] == 1
        assert mos.mem_scheduler_on()
        run_until_idle(mos.mem_scheduler)
        assert mos.mem_scheduler_off() and not mos.mem_scheduler._running
    assert (tmp_path / "m.db").is_file()
    with pytest.raises(MemosError, match="closed"):
        mos.search("puppy")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"enable_parametric_memory": True}, "enable_parametric_memory"),
        ({"enable_textual_memory": False}, "enable_textual_memory"),
        ({"chat_model": {"backend": "openai"}}, "chat_model"),
        ({"mem_reader": {"backend": "simple_struct"}}, "mem_reader"),
        ({"mem_scheduler": {"backend": "general_scheduler", "config": {"topk": 1}}}, "top_k"),
        (
            {
                "mem_scheduler": {
                    "backend": "general_scheduler",
                    "config": {"use_redis_queue": True, "redis_config": {"hots": "redis"}},
                }
            },
            "redis_config",
        ),
        ({"top_k": 0}, "top_k=0"),
        ({"usr_id": "x"}, "Did you mean 'user_id'"),
    ],
)
def test_configurations_that_cannot_work(values: dict[str, Any], says: str) -> None:
    """A key or value that cannot be honoured is a ConfigError that names it."""
    with pytest.raises(ConfigError, match=says):
        MOS(values)


def test_a_configuration_of_another_type_is_refused(runtime: Runtime) -> None:
    """What is neither a MOSConfig nor a mapping is refused by name of its type."""
    with pytest.raises(InvalidInput, match="int"):
        MOS(5, runtime=runtime)  # type: ignore[arg-type]


def test_a_configuration_is_read_from_a_file(tmp_path: Path) -> None:
    """YAML and JSON files hold the whole configuration, the scheduler's included."""
    file = tmp_path / "mos.yaml"
    file.write_text("user_id: ann\nmem_scheduler:\n  backend: optimized_scheduler\n  config:\n    top_k: 4\n")
    config = MOSConfig.from_yaml_file(file)
    assert config.user_id == "ann" and config.mem_scheduler is not None
    assert (config.mem_scheduler.backend, config.mem_scheduler.config.top_k) == ("optimized_scheduler", 4)


def test_activation_memory_is_switched_on_by_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """enable_activation_memory reaches the scheduler of the runtime that the object opens."""
    monkeypatch.setenv("MEMOS_HOME", str(tmp_path))
    monkeypatch.setenv("MEMOS_MODELS__EMBEDDER", "none")
    with MOS({"enable_activation_memory": True}) as mos:
        assert mos.runtime.settings.scheduler.enable_activation_memory
        assert mos.mem_scheduler.config.enable_activation_memory  # type: ignore[attr-defined]
