"""The values of the activation port."""

from __future__ import annotations

import pytest

from memos.errors import ActivationMiss
from memos.memory.activation.base import Entry, Generation, Layout, MissReason, Response, Suffix
from memos.memory.activation.layout import namespace_of
from memos.models.base import ChatMessage

ONE, TWO, THREE = (Entry(name, 1, f"- {name}\n") for name in ("one", "two", "three"))


def test_text_is_its_parts() -> None:
    """What is tokenised part by part is exactly the text that the model reads."""
    layout = Layout("n", "Be kind.\n", (ONE, TWO))
    assert layout.text == "Be kind.\n- one\n- two\n" == "".join(layout.parts)
    suffix = Suffix(layout, (ChatMessage("user", "hello"),))
    assert [one.content for one in suffix.chat] == [layout.text, "hello"]


def test_common_beginning_counts_equal_entries_alone() -> None:
    """A version, a header or a namespace that differs ends what two layouts share."""
    layout = Layout("n", "h\n", (ONE, TWO, THREE))
    assert layout.common_entries(Layout("n", "h\n", (ONE, THREE))) == 1
    assert layout.common_entries(Layout("n", "h\n", (ONE, Entry("two", 2, TWO.text)))) == 1
    assert layout.common_entries(Layout("n", "other\n", (ONE,))) == -1
    assert layout.common_entries(Layout("m", "h\n", (ONE,))) == -1


def test_response_is_there_when_all_is_read() -> None:
    """Usage that is asked for too early is refused, not made up."""
    generation = Generation(iter(["a", "b"]), lambda: Response(10, 2, 7))
    with pytest.raises(ActivationMiss) as caught:
        _ = generation.response
    assert caught.value.reason == MissReason.FAILED
    assert "".join(generation) == "ab"
    assert generation.response.tokens_cached == 7


def test_namespaces_differ_by_reader_cubes_order_and_store() -> None:
    """No two readers, sets of cubes or stores get one namespace, and joined names do not collide."""
    spaces = [
        namespace_of("ann", ["a", "b"]),
        namespace_of("ann", ["b", "a"]),
        namespace_of("ann", ["ab"]),
        namespace_of("bob", ["a", "b"]),
        namespace_of("ann", ["a", "b"], salt="s"),
    ]
    assert len(set(spaces)) == len(spaces)
    assert namespace_of("ann", ["a", "b"]) == spaces[0]
