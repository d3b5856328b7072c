"""What a view must be for a session to be made from it."""

from __future__ import annotations

from itertools import pairwise

from ..errors import InvalidArgumentError
from ..models import InvocationStatus, View
from .heads import nanos


def checked(view: View) -> None:
    """Raise InvalidArgumentError where the parts of a view contradict one another."""
    head = view.metadata
    calls = [record for record in view.records if record.kind == "work"]
    failed = sum(record.status is not InvocationStatus.OK for record in calls)
    cost = sum(nanos(record.cost or 0.0) for record in view.records if record.kind != "session")
    seqs = [message.seq for message in view.messages]
    faults = [
        (any(seq < 1 for seq in seqs), "a message has no seq"),
        (any(a >= b for a, b in pairwise(seqs)), "its messages are not in the order of their seq"),
        (bool(seqs) and seqs[-1] > head.last_seq, f"message {seqs[-1:]} is beyond last_seq {head.last_seq}"),
        (len(seqs) != head.message_count, f"it has {len(seqs)} messages, but counts {head.message_count}"),
        (len({message.message_id for message in view.messages}) != len(seqs), "two messages share an id"),
        (head.revision < 1, "its revision is not 1 or more"),
        (
            any(not 1 <= value.version <= head.revision for value in view.data.values()),
            "a key's version is not between 1 and the revision",
        ),
        (
            len({record.invocation_id for record in view.records}) != len(view.records),
            "two records share an id",
        ),
        (
            any(record.status is InvocationStatus.RUNNING for record in view.records),
            "a record is still running",
        ),
        (len(calls) > head.total_invocations, f"it has {len(calls)} calls, but counts {head.total_invocations}"),
        (failed > head.failed_invocations, f"{failed} of its calls failed, but it counts {head.failed_invocations}"),
        (cost * (1 - 1e-12) > nanos(head.estimated_cost), "its calls cost more than it counts"),
    ]
    for fault, what in faults:
        if fault:
            raise InvalidArgumentError(f"Session {head.session_id} cannot be restored: {what}.")
