"""Start-time fair queueing, without a queue around it."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from memos.mem_scheduler.queues.fair import FairOrder


def test_users_take_turns_and_so_do_their_items() -> None:
    """Each user is served in turn; inside a user, first come, first served."""
    order: FairOrder[str] = FairOrder()
    for item in ("a1", "a2", "b1"):
        order.add(item[0], "label", item)
    seen = []
    while (item := order.pop(["label"])) is not None:
        order.charge(item[0], 1)
        seen.append(item)
    assert seen == ["a1", "b1", "a2"]


def test_only_asked_labels_are_looked_at() -> None:
    """An item stands under its label; others do not see it."""
    order: FairOrder[str] = FairOrder()
    order.add("a", "x", "item")
    assert not order.has(["y"])
    assert order.pop(["y"]) is None
    assert order.has(["y", "x"])
    assert order.pop(["y", "x"]) == "item"
    assert not order.has(["x"])


def test_a_removed_item_is_not_served() -> None:
    """Removing twice, or what was never there, does nothing."""
    order: FairOrder[str] = FairOrder()
    order.remove("a", "x", "item")
    order.add("a", "x", "item")
    order.add("a", "x", "other")
    order.remove("a", "x", "item")
    order.remove("a", "x", "item")
    assert order.pop(["x"]) == "other"
    assert order.pop(["x"]) is None


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_virtual_time_never_goes_back_and_service_is_fair(seed: int) -> None:
    """Whoever always has work is within one cost of the others per unit of weight (theorem 1)."""
    pick = random.Random(seed)
    order: FairOrder[str] = FairOrder()
    weight = {"a": 1.0, "b": 2.0, "c": 0.5}
    for user in weight:
        order.add(user, pick.choice("xy"), user)
    service = dict.fromkeys(weight, 0.0)
    before = 0.0
    for number in range(400):
        if pick.random() < 0.2:  # passers-by
            order.add(f"guest-{number}", "x", f"guest-{number}")
        user = order.pop(["x", "y"])
        assert user is not None
        assert order.virtual_time >= before
        before = order.virtual_time
        cost = pick.randint(1, 10)
        order.charge(user, cost, weight=weight.get(user, 1.0))
        if user in weight:
            service[user] += cost / weight[user]
            order.add(user, pick.choice("xy"), user)
        bound = 10 / min(weight.values()) * 2
        assert max(service.values()) - min(service.values()) <= bound


def test_users_who_come_and_go_leave_nothing_behind() -> None:
    """After many users came and went the order holds a few, not all of them."""
    order: FairOrder[int] = FairOrder()
    order.add("steady", "x", -1)
    for number in range(5_000):
        order.add(f"user-{number}", "x", number)
        for _ in range(2):
            item = order.pop(["x"])
            assert item is not None
            user = "steady" if item == -1 else f"user-{item}"
            order.charge(user, 1)
            if item == -1:
                order.add("steady", "x", -1)
    assert len(order._flows) < 50
    assert len(order._idle) < 50
    for number in range(5_000):
        order.add(f"gone-{number}", "y", number)
        order.remove(f"gone-{number}", "y", number)
        order.add(f"gone-{number}", "x", number)
        order.remove(f"gone-{number}", "x", number)
    assert sum(map(len, order._heaps.values())) < 200


def test_waiting_under_a_label_that_nobody_asks_for_saves_up_no_credit() -> None:
    """A user whose item was withdrawn unserved starts where the others are."""
    order: FairOrder[str] = FairOrder()
    order.add("idle", "unserved", "parked")
    order.add("busy", "x", "busy")
    for _ in range(100):
        assert order.pop(["x"]) == "busy"
        order.charge("busy", 1)
        order.add("busy", "x", "busy")
    order.remove("idle", "unserved", "parked")
    order.add("idle", "x", "idle")
    seen = []
    for _ in range(10):
        user = order.pop(["x"])
        assert user is not None
        order.charge(user, 1)
        order.add(user, "x", user)
        seen.append(user)
    assert Counter(seen) == {"busy": 5, "idle": 5}


def test_many_users_are_all_served_once_a_round() -> None:
    """With equal costs every round serves every user exactly once."""
    order: FairOrder[str] = FairOrder()
    users = [f"user-{n}" for n in range(50)]
    for user in users:
        order.add(user, "x", user)
    for _ in range(10):
        served = []
        for _ in users:
            user = order.pop(["x"])
            assert user is not None
            order.charge(user, 7)
            order.add(user, "x", user)
            served.append(user)
        assert Counter(served) == Counter(users)
