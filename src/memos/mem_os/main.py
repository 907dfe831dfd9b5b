"""`MOS`: memories, recall, chat and the scheduler behind one object, for programs without a server.

    with MOS() as mos:
        mos.create_user("ann")
        mos.register_mem_cube("pets", user_id="ann")
        mos.add(messages=[{"role": "user", "content": "My dog is called Max."}], user_id="ann")
        print(mos.chat("What is my dog called?", user_id="ann"))

The same parts do the work as in the HTTP API. Without a configuration or a runtime it uses the process's
own runtime, which it shares with `server_router`; with a configuration it builds one and closes it.
Every user acts on the cubes registered for them alone. Thread-safe.
"""

from __future__ import annotations

import atexit
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypedDict

from memos import context
from memos.clock import utc
from memos.configs.mem_cube import GeneralMemCubeConfig
from memos.configs.mem_os import MOSConfig
from memos.errors import InvalidInput
from memos.mem_chat.chat import ChatQuery
from memos.mem_cube.bundle import holds_bundle, read_bundle
from memos.mem_cube.general import PREFERENCE_KINDS, TEXT_KINDS, GeneralMemCube
from memos.mem_os.documents import attachment
from memos.mem_os.histories import Histories
from memos.mem_os.users import User, Users
from memos.mem_scheduler.schemas.message_schemas import check_id, check_text
from memos.memory.activation.described import ActivationMemoryItem
from memos.memory.cube import NaiveMemCube, TextMemory
from memos.memory.item import MemoryKind
from memos.memory.store import ItemFilter
from memos.memory.textual import TextualMemoryItem
from memos.memory.turns import Conversation
from memos.retrieval.request import RecallRequest

if TYPE_CHECKING:
    from memos.mem_scheduler.general_scheduler import GeneralScheduler
    from memos.memory.activation.kv_memory import KVCacheMemory
    from memos.runtime import Runtime


class CubeMemories(TypedDict):
    """The memories of one cube, best or newest first."""

    cube_id: str
    memories: list[TextualMemoryItem]


class CubeActivation(TypedDict):
    """What is kept ready over one cube: descriptions, no tensors."""

    cube_id: str
    memories: list[ActivationMemoryItem]


class MOSSearchResult(TypedDict):
    """Memories by area. `act_mem` is empty in what is searched, `para_mem` always: there is no such memory."""

    text_mem: list[CubeMemories]
    act_mem: list[CubeActivation]
    para_mem: list[CubeMemories]
    pref_mem: list[CubeMemories]


class MOS:
    """See the module docstring."""

    def __init__(
        self, config: MOSConfig | Mapping[str, Any] | None = None, *, runtime: Runtime | None = None
    ) -> None:
        if isinstance(config, Mapping):
            config = MOSConfig(**config)
        if config is not None and not isinstance(config, MOSConfig):
            raise InvalidInput(f"config must be a MOSConfig or a mapping, not {type(config).__name__}")
        self.config = config or MOSConfig()
        self._owned: Runtime | None = None
        if runtime is None:
            runtime = self._own() if config is not None else _shared()
        self.runtime = runtime
        self._users = Users()
        self._caches: dict[str, KVCacheMemory] = {}  # of the cube objects that were registered
        self._histories = Histories(turns_max=self.config.max_turns_window)
        self.create_user(self.config.user_id)

    def _own(self) -> Runtime:
        from memos.runtime import build
        from memos.settings import Settings

        settings = Settings.load()
        if self.config.enable_activation_memory:
            section = settings.scheduler.model_copy(update={"enable_activation_memory": True})
            settings = settings.model_copy(update={"scheduler": section})
        self._owned = build(
            settings,
            start=self.config.enable_mem_scheduler,
            scheduler=self.config.mem_scheduler,
        )
        atexit.register(self._owned.close)
        return self._owned

    def close(self) -> None:
        """Close what this object opened; a runtime that was handed over or is shared stays open."""
        if self._owned is not None:
            self._owned.close()
            atexit.unregister(self._owned.close)
            self._owned = None

    def __enter__(self) -> MOS:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- users ----------------------------------------------------------------------------------------

    def create_user(self, user_id: str, role: str = "USER", user_name: str | None = None) -> str:
        """Make a user known; one who is known already stays as they are. Returns the id."""
        now = utc(self.runtime.clock.now())
        return self._users.create(user_id, user_name=user_name or "", role=role, at=now).user_id

    def list_users(self) -> list[dict[str, Any]]:
        """Everybody who was created, oldest first."""
        return [_user_form(user) for user in self._users.all()]

    def get_user_info(self, user_id: str | None = None) -> dict[str, Any]:
        """One user, and how much each of their cubes holds. Raises InvalidInput."""
        user = self._users.require(self._who(user_id))
        sizes = {cube_id: self.runtime.store.sizes(cube_id) for cube_id in user.cube_ids}
        return _user_form(user) | {
            "accessible_cubes": [
                {"cube_id": cube_id, "memories": size.long_term + size.user + size.preference}
                for cube_id, size in sizes.items()
            ]
        }

    # -- cubes ----------------------------------------------------------------------------------------

    def register_mem_cube(
        self,
        mem_cube_name_or_path: str | Path | GeneralMemCube | NaiveMemCube,
        mem_cube_id: str | None = None,
        user_id: str | None = None,
    ) -> str:
        """Let a user use a cube; returns its id.

        Given a cube object: that cube. Given a folder that `dump` wrote: the cube in it, loaded unless the
        store holds that cube already. Given any other text: the cube of that name, which comes into being
        with its first memory. `mem_cube_id` names it where the name is only for people. Raises InvalidInput,
        StoreError.
        """
        who = self._users.require(self._who(user_id)).user_id
        cube_id = self._cube_id(mem_cube_name_or_path, mem_cube_id)
        self._users.register(who, cube_id)
        if isinstance(mem_cube_name_or_path, GeneralMemCube) and mem_cube_name_or_path.act_mem is not None:
            self._caches[cube_id] = mem_cube_name_or_path.act_mem
        return cube_id

    def unregister_mem_cube(self, mem_cube_id: str, user_id: str | None = None) -> None:
        """Take a cube from a user; its memories stay in the store. Raises CubeNotFound."""
        self._users.unregister(self._who(user_id), mem_cube_id)

    def share_cube_with_user(self, cube_id: str, target_user_id: str, *, user_id: str | None = None) -> bool:
        """Let `target_user_id` use a cube of the user's. Raises InvalidInput, CubeNotFound."""
        self._users.register(target_user_id, self._users.allow(self._who(user_id), cube_id))
        return True

    def _cube_id(self, given: str | Path | GeneralMemCube | NaiveMemCube, wanted: str | None) -> str:
        if isinstance(given, GeneralMemCube) and given.runtime.store is not self.runtime.store:
            raise InvalidInput(f"{given!r} is in another store; dump it to a folder and register the folder")
        if isinstance(given, GeneralMemCube | NaiveMemCube):
            if wanted not in (None, given.cube_id):
                raise InvalidInput(f"{given!r} has the id {given.cube_id!r}, not {wanted!r}")
            return given.cube_id
        if not isinstance(given, str | Path):
            raise InvalidInput(f"a cube is given by name, folder or object, not {type(given).__name__}")
        folder = _folder(given)
        if folder is None:
            return check_id("mem_cube_id", wanted or str(given))
        cube_id = check_id("mem_cube_id", wanted or read_bundle(folder).cube_id)
        if not self.runtime.store.seq(cube_id):
            GeneralMemCube.init_from_dir(folder, mem_cube_id=cube_id, runtime=self.runtime)
        return cube_id

    def dump(self, dump_dir: str | Path, user_id: str | None = None, mem_cube_id: str | None = None) -> Path:
        """Write a cube to a folder; returns the file. See `GeneralMemCube.dump`."""
        cube_id = self._one_cube(self._who(user_id), mem_cube_id)
        config = GeneralMemCubeConfig(cube_id=cube_id)
        return GeneralMemCube(config, runtime=self.runtime).dump(dump_dir)

    # -- memories -------------------------------------------------------------------------------------

    def add(
        self,
        messages: str | Sequence[Mapping[str, Any]] | None = None,
        memory_content: str | None = None,
        doc_path: str | Path | None = None,
        mem_cube_id: str | None = None,
        user_id: str | None = None,
        session_id: str | None = None,
    ) -> list[str]:
        """Store a conversation, a text or a document; returns the ids, recallable when it returns.

        Give exactly one of the first three. `doc_path` is one file of this machine, of any kind that
        docs/reading.md lists; a server refuses it, here it is the caller's own. Messages may carry files
        as parts. Default cube: the first one registered. Raises InvalidInput (DocumentError for a file),
        CubeNotFound, StoreError; then nothing is stored.
        """
        given = [one for one in (messages, memory_content, doc_path) if one is not None]
        if len(given) != 1:
            raise InvalidInput(
                f"give exactly one of messages, memory_content and doc_path, not {len(given)} of them"
            )
        who = self._who(user_id)
        cube_id = self._users.some_of(who, [mem_cube_id] if mem_cube_id else None)[0]
        content: str | Sequence[Mapping[str, Any]] | Conversation
        if doc_path is not None:
            bytes_max = self.runtime.settings.documents.bytes_max
            content = Conversation((), attachments=(attachment(Path(doc_path), bytes_max=bytes_max),))
        elif memory_content is not None:
            content = check_text("memory_content", memory_content)
        else:
            content = messages if messages is not None else ""
        written = self.runtime.chat.writer.write(
            content,
            user_id=who,
            cube_ids=(cube_id,),
            session_id=self._session(session_id),
        )
        return [item.id for item in written.items]

    def search(
        self,
        query: str,
        user_id: str | None = None,
        install_cube_ids: list[str] | None = None,
        top_k: int | None = None,
        session_id: str | None = None,
        relativity: float = 0.0,
    ) -> MOSSearchResult:
        """Recall from the named cubes, or from all of the user's; best first in each. Raises InvalidInput,
        CubeNotFound, StoreError."""
        who = self._who(user_id)
        cubes = self._users.some_of(who, install_cube_ids)

        def recalled(kinds: tuple[MemoryKind, ...]) -> list[CubeMemories]:
            recall = self.runtime.retriever.search(
                RecallRequest(
                    query=query,
                    cube_ids=cubes,
                    user_id=who,
                    top_k=self.config.top_k if top_k is None else top_k,
                    session_id=self._session(session_id),
                    relativity=relativity,
                    kinds=kinds,
                    # "The user prefers tea" is about its owner, not about who else may read the cube.
                    filter=ItemFilter().of_user(who) if kinds == PREFERENCE_KINDS else None,
                )
            )
            found: dict[str, list[TextualMemoryItem]] = {cube_id: [] for cube_id in cubes}
            for hit in recall.hits:
                form = TextualMemoryItem.from_item(hit.item, relativity=hit.relativity)
                found[hit.item.cube_id].append(form)
            return [{"cube_id": cube_id, "memories": memories} for cube_id, memories in found.items()]

        preferences = recalled(PREFERENCE_KINDS) if self.config.enable_preference_memory else []
        return _result(recalled(TEXT_KINDS), preferences)

    def get_all(self, mem_cube_id: str | None = None, user_id: str | None = None) -> MOSSearchResult:
        """Every live memory of a cube, or of all the user's cubes, newest first.

        `act_mem`: what is kept ready for this user over each cube, and the caches of a registered cube object.
        """
        who = self._who(user_id)
        cubes = self._users.some_of(who, [mem_cube_id] if mem_cube_id else None)
        text: list[CubeMemories] = []
        preferences: list[CubeMemories] = []
        for cube_id in cubes:
            cube = self._cube(cube_id)
            text.append({"cube_id": cube_id, "memories": cube.text_mem.get_all()})
            if cube.pref_mem is not None:
                preferences.append({"cube_id": cube_id, "memories": cube.pref_mem.get_all()})
        kept: list[CubeActivation] = [
            {"cube_id": cube_id, "memories": self._kept(who, cube_id)} for cube_id in cubes
        ]
        return _result(text, preferences) | {"act_mem": kept}

    def _kept(self, who: str, cube_id: str) -> list[ActivationMemoryItem]:
        prefixes = self._naive(cube_id).act_mem
        caches = self._caches.get(cube_id)
        found = prefixes.get_all(user_id=who, within=self._users.some_of(who, None)) if prefixes else []
        return found + ([one.described(cube_id) for one in caches.get_all()] if caches else [])

    def get(self, mem_cube_id: str, memory_id: str, user_id: str | None = None) -> TextualMemoryItem:
        """One memory. Raises CubeNotFound, ItemNotFound, ItemGone."""
        return self._allowed(user_id, mem_cube_id).get(memory_id)

    def update(
        self,
        mem_cube_id: str,
        memory_id: str,
        text_memory_item: str | Mapping[str, Any] | TextualMemoryItem,
        user_id: str | None = None,
    ) -> TextualMemoryItem:
        """Replace a memory's text, and the metadata that an item names. The journal keeps what it was."""
        memory = self._allowed(user_id, mem_cube_id)
        with context.bound(user=self._who(user_id), cube=mem_cube_id):
            return memory.update(memory_id, text_memory_item)

    def delete(self, mem_cube_id: str, memory_id: str, user_id: str | None = None) -> None:
        """Delete a memory from text, indexes and working memory in one step. Raises ItemNotFound, ItemGone."""
        memory = self._allowed(user_id, mem_cube_id)
        with context.bound(user=self._who(user_id), cube=mem_cube_id):
            memory.delete([memory_id])

    def delete_all(self, mem_cube_id: str | None = None, user_id: str | None = None) -> int:
        """Delete every memory of a cube; returns how many. A user with several cubes has to name one."""
        who = self._who(user_id)
        cube_id = self._one_cube(who, mem_cube_id)
        with context.bound(user=who, cube=cube_id):
            return self._memory(cube_id).delete_all()

    # -- chat -----------------------------------------------------------------------------------------

    def chat(
        self,
        query: str,
        user_id: str | None = None,
        base_prompt: str | None = None,
        session_id: str | None = None,
        mem_cube_id: str | None = None,
    ) -> str:
        """Answer out of the user's cubes (or the named one), and remember the turn in the first of them.

        The scheduler gets the query and the answer. Raises InvalidInput, CubeNotFound, StoreError.
        """
        who = self._who(user_id)
        cubes = self._users.some_of(who, [mem_cube_id] if mem_cube_id else None)
        session = self._session(session_id)
        asked = ChatQuery(
            user_id=who,
            query=check_text("query", query),
            readable_cube_ids=cubes,
            writable_cube_ids=cubes[:1],
            session_id=session,
            history=self._histories.of(who, session),
            system_prompt=base_prompt or "",
            top_k=self.config.top_k,
            include_preference=self.config.enable_preference_memory,
        )
        with context.bound(user=who, cube=cubes[0], trace=context.current_trace_id()):
            answer = self.runtime.chat.answer(asked).response
        self._histories.add(who, session, query, answer)
        return answer

    def clear_messages(self, user_id: str | None = None) -> None:
        """Forget what was said in a user's chats here; their memories stay."""
        self._histories.clear(self._users.require(self._who(user_id)).user_id)

    # -- the scheduler --------------------------------------------------------------------------------

    @property
    def mem_scheduler(self) -> GeneralScheduler:
        """The scheduler behind this object."""
        return self.runtime.scheduler

    def mem_scheduler_on(self) -> bool:
        """Start the scheduler; waiting tasks run. True when it runs."""
        if not self.mem_scheduler._running:
            self.mem_scheduler.start()
        return True

    def mem_scheduler_off(self) -> bool:
        """Stop the scheduler; tasks wait until it runs again. True when it stands."""
        self.mem_scheduler.stop()
        return True

    # -- lookups --------------------------------------------------------------------------------------

    def _who(self, user_id: str | None) -> str:
        return self.config.user_id if user_id is None else user_id

    def _session(self, session_id: str | None) -> str:
        session = self.config.session_id if session_id is None else session_id
        return check_id("session_id", session) if session else ""

    def _one_cube(self, who: str, mem_cube_id: str | None) -> str:
        cubes = self._users.some_of(who, [mem_cube_id] if mem_cube_id else None)
        if len(cubes) > 1:
            raise InvalidInput(f"user {who!r} has {len(cubes)} cubes; name one of them as mem_cube_id")
        return cubes[0]

    def _allowed(self, user_id: str | None, cube_id: str) -> TextMemory:
        return self._memory(self._users.allow(self._who(user_id), cube_id))

    def _memory(self, cube_id: str) -> TextMemory:
        """All memories of a cube, of every kind."""
        return self._naive(cube_id).text_mem

    def _naive(self, cube_id: str) -> NaiveMemCube:
        parts = self.runtime
        return NaiveMemCube(
            cube_id,
            store=parts.store,
            indexer=parts.indexer,
            retriever=parts.retriever,
            clock=parts.clock,
        )

    def _cube(self, cube_id: str) -> GeneralMemCube:
        areas = {} if self.config.enable_preference_memory else {"pref_mem": None}
        return GeneralMemCube(GeneralMemCubeConfig(cube_id=cube_id, **areas), runtime=self.runtime)


def _shared() -> Runtime:
    from memos.runtime import current

    return current()


def _folder(given: str | Path) -> Path | None:
    """The folder that is meant, or None for a name. Raises InvalidInput for a path without a cube."""
    path = Path(given).expanduser() if str(given).strip() and "\x00" not in str(given) else None
    if path is not None and holds_bundle(path):
        return path
    if isinstance(given, Path) or given.startswith(("/", "./", "../", "~")):
        raise InvalidInput(f"{given} holds no dumped cube; give a folder that dump wrote, or a cube's name")
    return None


def _result(text: list[CubeMemories], preferences: list[CubeMemories]) -> MOSSearchResult:
    return {"text_mem": text, "act_mem": [], "para_mem": [], "pref_mem": preferences}


def _user_form(user: User) -> dict[str, Any]:
    return {
        "user_id": user.user_id,
        "user_name": user.user_name,
        "role": user.role,
        "created_at": user.created_at.isoformat(),
        "cube_ids": list(user.cube_ids),
    }
