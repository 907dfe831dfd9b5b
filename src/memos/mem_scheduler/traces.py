"""The spans of a message: submit, wait in the queue, and each run of its handler.

    submit query ─┬─ wait query
                  └─ run query ─┬─ recall, model calls, store transactions …
                                ├─ wait mem_update
                                └─ run mem_update …

A message carries the traceparent of its submit, a chained one that of the run that chains it. A call of a handler
with several messages is a span in the trace of each; what happens inside stands below the first one's, to which
the others link. A repeat is a span of its own that links to the first run, whose id follows from the message's
key. Only where `memos.tracing` is on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from memos import context, tracing
from memos.mem_scheduler.current import BatchRun
from memos.mem_scheduler.queues.base import Delivery
from memos.mem_scheduler.schemas.message_schemas import ScheduleMessageItem

SPANS_MAX = 64  # messages of one call that get spans of their own; of the others there is a count
_LABELS_SHOWN = 5


@contextmanager
def submitting(messages: Sequence[ScheduleMessageItem]) -> Iterator[list[ScheduleMessageItem]]:
    """The messages with the place of this submit. Outside of any trace it is the first span of theirs."""
    labels = sorted({message.label for message in messages})
    name = f"submit {labels[0]}" if len(labels) == 1 else "submit"
    with (
        context.bound(trace=context.trace_id.get() or messages[0].trace_id),
        tracing.span(
            name,
            "producer",
            memos_labels=",".join(labels[:_LABELS_SHOWN]),
            messaging_batch_message__count=len(messages),
        ) as span,
    ):
        yield [one.model_copy(update={"traceparent": span.traceparent}) for one in messages]


@contextmanager
def calling(label: str, members: Sequence[Delivery], run: BatchRun, *, again: bool) -> Iterator[tracing.Span]:
    """The spans of one call of a handler. `again`: after a call with more messages, under the same lease."""
    began = time.time()
    first, *others = members
    for one in members[:SPANS_MAX]:
        if not (again or one.attempts or one.recoveries) and one.enqueued_at:
            tracing.record(
                f"wait {label}",
                start_s=one.enqueued_at,
                end_s=began,
                parent=_parent(one),
                memos_label=label,
            )
    with tracing.span(
        f"run {label}",
        "consumer",
        parent=_parent(first),
        links=[*_earlier(first, again=again), *(one.traceparent for one in first.absorbed)],
        span_id=_own_id(first, again=again),
        memos_label=label,
        memos_attempt=first.attempts + first.recoveries + 1,
        messaging_message_id=first.key,
        messaging_batch_message__count=len(members),
    ) as span:
        run.traceparent = span.traceparent  # also of what is settled behind the call
        yield span
    ended = time.time()
    for one in others[: SPANS_MAX - 1]:
        tracing.record(
            f"run {label}",
            "consumer",
            start_s=began,
            end_s=ended,
            parent=_parent(one),
            links=[span.traceparent, *_earlier(one, again=again)],
            span_id=_own_id(one, again=again),
            memos_label=label,
            memos_attempt=one.attempts + one.recoveries + 1,
            messaging_message_id=one.key,
            messaging_batch_message__count=len(members),
        )


def _parent(delivery: Delivery) -> str:
    """Where its submit stands; of a message that was submitted untraced a place in the trace of its name."""
    message = delivery.message
    if message.traceparent:
        return message.traceparent
    trace_id = tracing.as_trace_id(message.trace_id or delivery.key)
    return f"00-{trace_id}-{tracing.first_run_of('submit ' + delivery.key)}-01"


def _is_repeat(delivery: Delivery, *, again: bool) -> bool:
    return bool(again or delivery.attempts or delivery.recoveries)


def _own_id(delivery: Delivery, *, again: bool) -> str:
    return "" if _is_repeat(delivery, again=again) else tracing.first_run_of(delivery.key)


def _earlier(delivery: Delivery, *, again: bool) -> list[str]:
    if not _is_repeat(delivery, again=again):
        return []
    trace_id = tracing.trace_of(tracing.checked(_parent(delivery)))
    return [f"00-{trace_id}-{tracing.first_run_of(delivery.key)}-01"]
