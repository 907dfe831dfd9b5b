"""What a chat remembers of itself is bounded both ways."""

from __future__ import annotations

from memos.mem_os.histories import Histories


def test_only_the_newest_turns_are_kept() -> None:
    """Of a long chat the newest turns stay, oldest of them first."""
    histories = Histories(turns_max=2)
    for n in range(5):
        histories.add("ann", "s", f"question {n}", f"answer {n}")
    said = [message.content for message in histories.of("ann", "s")]
    assert said == ["question 3", "answer 3", "question 4", "answer 4"]


def test_the_chat_that_was_quiet_longest_leaves() -> None:
    """Over the bound of chats the one without news goes, others stay."""
    histories = Histories(turns_max=2, chats_max=2)
    for session in ("a", "b", "a", "c"):
        histories.add("ann", session, "q", session)
    assert histories.of("ann", "b") == ()
    assert len(histories.of("ann", "a")) == 4 and len(histories.of("ann", "c")) == 2
