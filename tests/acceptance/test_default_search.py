"""What a search without options finds and leaves out, with the embedder that is installed by default."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from memos.api.handlers import Handlers, handlers_of
from memos.api.product_models import APIADDRequest, APISearchRequest
from memos.runtime import build
from memos.settings import Settings

MEMORIES = {
    "city": "The user lives in Marseille.",
    "work": "The user works as a carpenter.",
    "pet": "The user owns a tabby cat named Miso.",
    "nuts": "The user is allergic to peanuts.",
    "sister": "The user's sister is called Clara.",
    "cello": "The user plays the cello in an orchestra.",
    "sport": "The user goes swimming three times a week.",
    "car": "The user owns a red Volvo station wagon.",
    "wife": "The user's wife is called Helen.",
    "children": "The user has two daughters and a son.",
    "languages": "The user is fluent in Portuguese and Dutch.",
    "study": "The user graduated from the University of Leiden.",
    "birth": "The user was born on 4 March 1988.",
    "summer": "The user spends every summer in Crete.",
}
CLOSE = {
    "which city do I live in": "city",
    "what am I allergic to": "nuts",
    "what pet do I have": "pet",
    "what is the name of my sister": "sister",
    "which instrument do I play": "cello",
    "what car do I drive": "car",
    "who am I married to": "wife",
    "how many children do I have": "children",
    "what languages can I speak": "languages",
    "where did I study": "study",
    "when is my birthday": "birth",
}
FAR = {  # hardly nearer than what is near by chance
    "which food must I avoid": "nuts",
    "what sport do I practise": "sport",
    "where do I go on holiday": "summer",
}
FARTHEST = {  # found where nothing else is; beside others it is first, and just below the default cut
    "what do I do for a living": "work",
}
UNRELATED = (
    "how do I fix a leaking tap",
    "what is the capital of Mongolia",
    "which train goes to the airport",
    "how long do eggs boil",
    "what did the doctor say about my knee",
    "who won the chess tournament",
)
BESIDE = (
    "The user repaired the garden fence last week.",
    "The user finished reading a novel about whales.",
    "The user's printer needs new toner.",
    "The user has a dentist appointment on Tuesday.",
    "The user bought a blue lamp for the hallway.",
    "The user dislikes horror films.",
    "The user is saving for a new bicycle.",
    "The user forgot the umbrella at the office.",
    "The user's laptop has sixteen gigabytes of memory.",
    "The user planted tomatoes on the balcony.",
    "The user watched a documentary about volcanoes.",
    "The user wants to learn pottery.",
    "The user's neighbour is renovating the kitchen.",
    "The user slept badly because of the storm.",
    "The user paid the electricity bill in advance.",
    "The user lost the key to the cellar.",
    "The user baked bread with rye flour.",
    "The user signed a petition against the motorway.",
    "The user's phone battery lasts only half a day.",
    "The user is knitting a scarf for winter.",
    "The user voted in the council election.",
    "The user found a coin from Roman times.",
    "The user prefers paper maps to navigation apps.",
    "The user's roof was damaged by hail.",
    "The user collects stamps from Iceland.",
    "The user started a course on bookkeeping.",
    "The user donated old clothes to charity.",
    "The user is afraid of heights.",
    "The user wrote a letter to the newspaper.",
    "The user's watch stopped at noon.",
)


@pytest.fixture(scope="module")
def handlers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Handlers]:
    """Each memory in a cube of its own, and in another one beside thirty others."""
    with build(Settings(home=tmp_path_factory.mktemp("home")), start=False) as runtime:
        made = handlers_of(runtime)
        for name, text in MEMORIES.items():
            _store(made, f"{name}-alone", text)
            for one in (text, *BESIDE):
                _store(made, f"{name}-beside", one)
        yield made


def _store(handlers: Handlers, cube_id: str, text: str) -> None:
    """A session of its own for each, so that none is another one's neighbour."""
    handlers.add.handle_add_memories(
        APIADDRequest(user_id="u", writable_cube_ids=[cube_id], session_id=f"about {text}", messages=text)
    )


def found(handlers: Handlers, cube_id: str, query: str, **asked: float) -> list[str]:
    request = APISearchRequest(user_id="u", readable_cube_ids=[cube_id], query=query, **asked)
    data = handlers.search.handle_search_memories(request).data or {}
    return [memory["memory"] for bucket in data["text_mem"] for memory in bucket["memories"]]


@pytest.mark.parametrize(("query", "name"), [*CLOSE.items(), *FAR.items(), *FARTHEST.items()])
def test_the_only_memory_answers_a_question_in_other_words(handlers: Handlers, query: str, name: str) -> None:
    """Alone in its cube it passes the default cut."""
    assert found(handlers, f"{name}-alone", query) == [MEMORIES[name]]


@pytest.mark.parametrize(("query", "name"), [*CLOSE.items(), *FAR.items()])
def test_it_stands_first_beside_unrelated_ones(handlers: Handlers, query: str, name: str) -> None:
    """Beside thirty others it passes the default cut, before anything else that does."""
    assert found(handlers, f"{name}-beside", query)[:1] == [MEMORIES[name]]


@pytest.mark.parametrize(("query", "name"), FARTHEST.items())
def test_what_is_said_quite_differently_is_first_without_the_cut(
    handlers: Handlers, query: str, name: str
) -> None:
    """Recall ranks it first; whether the default cut leaves it depends on how many others there are."""
    assert found(handlers, f"{name}-beside", query, relativity=0)[0] == MEMORIES[name]


@pytest.mark.parametrize("query", UNRELATED)
def test_an_unrelated_question_finds_nothing(handlers: Handlers, query: str) -> None:
    """Neither the one memory of a cube nor the best of thirty-one passes the default cut."""
    for name in MEMORIES:
        assert found(handlers, f"{name}-alone", query) == []
        assert found(handlers, f"{name}-beside", query) == []
