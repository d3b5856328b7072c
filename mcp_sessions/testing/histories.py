"""Random histories: what a backend answers must be what memory answers, to the letter.

A history is at least 30 operations on a few sessions, users, tags, keys and words, so that they meet. Each is done
to both stores, and its result or its error must be equal; at the end so must everything that can be asked. Moments
and ids are part of the history: the same history gives the same stores.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, cast, get_args

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from ..errors import InvocationRecordedError, SessionNotFoundError, SessionsError
from ..models import (
    Alter,
    Change,
    Clearable,
    GroupBy,
    InvocationQuery,
    InvocationStatus,
    Order,
    Page,
    Query,
    Role,
    SessionStatus,
    View,
    Want,
    tokens,
)
from ..session import Session
from ..storage.base import SessionStorage
from ..storage.heads import Committed
from ..storage.memory import MemorySessionStorage
from .making import ALL, at, called, head, joined, said

FULL = os.environ.get("SESSIONS_TEST_COUNTS") == "full"
EXAMPLES = 2_000 if FULL else 12
OPERATIONS = 30

SESSIONS = ("a", "b", "B")
COPIES = ("c", "d")
USERS = (None, "ana", "bob")
TAGS = ("x", "y", "É")
KEYS = ("k", "l", ".i", ".j", "k.1")
WORDS = ("apple", "Äpfel", "pear", "x_y")
TOOLS = ("grep", "ls")
MODELS = (None, "m", "n")
PURPOSES = (None, "fix it", "Fïx")

Act = Callable[[SessionStorage], object]


@dataclass(frozen=True)
class Operation:
    """Looks at the reference, so that its conditions may be right, and gives the act that is done to both stores."""

    text: str
    look: Callable[[SessionStorage], Act]


_one = st.sampled_from
_session = _one(SESSIONS)
_any_session = _one(SESSIONS + COPIES)
_user = _one(USERS)
_tags = st.lists(_one(TAGS), max_size=2).map(tuple)
_moment = st.one_of(st.integers(0, 20), st.sampled_from((0.0005, 1.0001, 1.0009, 86_400.0)))
_values: st.SearchStrategy[Any] = st.integers(0, 3) | st.just({"deep": [None, 1.5, "é"]})
_key_sets: st.SearchStrategy[dict[str, Any]] = st.dictionaries(_one(KEYS), _values, max_size=2)
_few = st.integers(0, 6)


def compare(open_store: Callable[[Path], SessionStorage], examples: int = EXAMPLES) -> None:
    """Do random histories to stores of this kind and to memory, so many of them.

    Where their answers differ, raises AssertionError with a short history that shows it.
    """

    def difference(history: list[Operation]) -> str | None:
        with tempfile.TemporaryDirectory() as folder, open_store(Path(folder)) as store:
            return differ(history, store, MemorySessionStorage())

    @settings(
        max_examples=examples,
        derandomize=not FULL,
        database=None,
        deadline=None,
        phases=[Phase.generate],  # a history that fails is cut down here: operations are left out, not made simpler
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )
    @given(st.lists(_operation, min_size=OPERATIONS, max_size=OPERATIONS + 10))
    def run(history: list[Operation]) -> None:
        if difference(history) is None:
            return
        for operation in list(history):
            shorter = [one for one in history if one is not operation]
            if difference(shorter) is not None:
                history = shorter
        raise AssertionError("\n".join([*(one.text for one in history), difference(history) or "nothing, this time"]))

    run()


def differ(history: list[Operation], store: SessionStorage, memory: SessionStorage) -> str | None:
    """Do a history to both stores and ask them everything; their first difference."""
    positions = [(store.changes(None).next_cursor, memory.changes(None).next_cursor)]
    for number, operation in enumerate(history):
        act = operation.look(memory)
        expected, actual = _outcome(act, memory), _outcome(act, store)
        if actual != expected:
            return f"{operation.text}\ngave {actual}\nnot  {expected}"
        if number % (OPERATIONS // 3) == 0:
            positions.append((store.changes(None).next_cursor, memory.changes(None).next_cursor))
    for question, ask in _questions():
        expected, actual = _outcome(ask, memory), _outcome(ask, store)
        if actual != expected:
            return f"{question}\nis  {actual}\nnot {expected}"
    for of_store, of_memory in positions:
        changed, known = _changed_since(store, of_store), _changed_since(memory, of_memory)
        if changed != known:
            return f"what changed\nis  {changed}\nnot {known}"
    faults = [finding for finding in store.check() if finding.level != "ok"]
    return f"the check found {faults}" if faults else None


# what was answered, without what may differ


def _outcome(act: Act, store: SessionStorage) -> object:
    try:
        return _plain(act(store))
    except InvocationRecordedError as error:
        return type(error), str(error), _plain(error.record)
    except SessionsError as error:
        return type(error), str(error), vars(error)


def _plain(value: Any) -> Any:
    if isinstance(value, Committed):
        metadata = value.metadata if value.session_id is not None else None
        return value.session_id, value.revision, value.seqs, value.removed, value.note, _plain(metadata)
    if isinstance(value, Page):
        page = cast("Page[Any]", value)
        return _plain(page.items), page.next_cursor is None
    if isinstance(value, Session):
        return value.to_dict()
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, list):
        return [_plain(one) for one in cast("list[Any]", value)]
    return value


def _changed_since(store: SessionStorage, position: str | None) -> dict[str, int | None]:
    changed: dict[str, int | None] = {}
    while items := (page := store.changes(position, limit=2)).items:
        changed |= {change.session_id: change.revision for change in items}
        position = page.next_cursor
    return changed


# what is done


def _short(value: BaseModel) -> str:
    return str(value.model_dump(mode="json", exclude_defaults=True))


@st.composite
def _record(draw: st.DrawFn, *, user: str | None) -> Any:
    status = draw(_one(tuple(InvocationStatus)))
    running = status is InvocationStatus.RUNNING
    model = draw(_one(MODELS))
    return called(
        draw(_one(("c1", "c2", "c3"))),
        draw(_moment),
        user_id=user,
        tool_name=draw(_one(TOOLS)),
        kind=draw(_one(("work", "work", "session", "usage"))),
        status=status,
        scope=draw(_one(("session", "session", "user", None))),
        attempt=draw(_one((1, 1, 2))),
        owner="own_a" if running or draw(_one((False, False, False, True))) else None,
        duration_ms=draw(_one((None, 0.5, 2.25))),
        model=model,
        token_usage=draw(_one((None, tokens(10, 5, 2, 1)))),
        cost=draw(_one((None, 0.0, 0.1, 0.000000003))) if model else None,
        result=draw(_one((None, {"r": 1}))),
        fills=draw(_one((None, {"v": "revision"}, {"*": "head"}))),
    )


@dataclass(frozen=True)
class _Conditional:
    """A change that may have a condition, which holds unless it is `off`."""

    change: Change
    condition: str
    key: str
    off: int

    @property
    def text(self) -> str:
        return f"{_short(self.change)} {self.condition and (self.condition, self.key, self.off)}"

    def given(self, view: View | None) -> Change:
        if view is None or not self.condition:
            return self.change
        if self.condition == "version":
            version = view.data[self.key].version if self.key in view.data else 0
            return self.change.model_copy(update={"expected_versions": {self.key: version + self.off}})
        now: int = getattr(view.metadata, self.condition)
        return self.change.model_copy(update={f"expected_{self.condition}": now + self.off})


@st.composite
def _change(draw: st.DrawFn, *, parts: bool = True) -> _Conditional:
    numbers = draw(st.lists(st.integers(1, 12), max_size=3))
    messages = tuple(
        said(
            f"m{number}",
            draw(_one((*WORDS, "apple pear"))),
            draw(_moment),
            role=draw(_one(get_args(Role))),
            payload=draw(_one((None, {"n": {"x": 1}}))),
        )
        for number in numbers
    )
    alter = None
    if draw(_few) == 0:
        alter = Alter(
            purpose=draw(_one(PURPOSES)),
            summary=draw(_one(PURPOSES)),
            status=draw(_one((None, *SessionStatus))),
            tags=draw(st.none() | _tags),
            add_tags=draw(_tags),
            remove_tags=draw(_tags),
            metadata=draw(st.none() | st.dictionaries(_one("mn"), st.integers(0, 2), max_size=1)),
            clear=tuple(draw(st.lists(_one(get_args(Clearable)), max_size=1))),
            remove_metadata=tuple(draw(st.lists(_one("mn"), max_size=1))),
        )
    user = draw(_user)
    records = draw(st.lists(_record(user=user), max_size=2, unique_by=lambda record: record.invocation_id))
    change = Change(
        at=at(draw(_moment)),
        messages=messages,
        retract=((draw(st.integers(0, 8)), draw(st.integers(0, 12))),) if draw(_few) == 0 else (),
        set=draw(_key_sets),
        remove=tuple(draw(st.lists(_one(KEYS), max_size=1))),
        remove_all=draw(_few) == 0,
        alter=alter,
        records=tuple(records),
        as_user=draw(_one((None, None, None, None, "ana"))),
        active=draw(_one((False, False, True))),
    )
    condition, off = draw(_one(("", "", "", "revision", "last_seq", "version"))), draw(_one((0, 0, 1)))
    key = draw(_one(KEYS))
    if parts and draw(_few) == 0:
        change = change.model_copy(update={"also": ((draw(_session), draw(_change(parts=False)).change),)})
    return _Conditional(change, condition, key, off)


def _view(memory: SessionStorage, session_id: str) -> View | None:
    want = Want(prefix="", keys=KEYS, messages=ALL, order="oldest", records=ALL)
    try:
        return memory.read(session_id, want)
    except SessionNotFoundError:
        return None


@st.composite
def _creating(draw: st.DrawFn) -> Operation:
    given = head(
        draw(_session),
        draw(_moment),
        user_id=draw(_user),
        purpose=draw(_one(PURPOSES)),
        tags=list(draw(_tags)),
        status=draw(_one((SessionStatus.ACTIVE, SessionStatus.ACTIVE, SessionStatus.FAILED))),
        custom_metadata=draw(_one(({}, {"m": {"n": [1]}}))),
    )
    change = draw(_change()).change
    text = f"create {_short(given)} with {_short(change)}"
    return Operation(text, lambda _: lambda store: store.create(given, change))


@st.composite
def _committing(draw: st.DrawFn) -> Operation:
    session_id, change = draw(_one((*SESSIONS, *SESSIONS, *COPIES))), draw(_change())

    def operation(memory: SessionStorage) -> Act:
        resolved = change.given(_view(memory, session_id))
        return lambda store: store.commit(session_id, resolved)

    return Operation(f"commit to {session_id}: {change.text}", operation)


@st.composite
def _recording(draw: st.DrawFn) -> Operation:
    change = draw(_change()).change
    change = change.model_copy(update={"messages": (), "set": {}, "remove": (), "alter": None})
    return Operation(f"commit to none: {_short(change)}", lambda _: lambda store: store.commit(None, change))


@st.composite
def _deleting(draw: st.DrawFn) -> Operation:
    session_id, change = draw(_any_session), draw(_change())

    def operation(memory: SessionStorage) -> Act:
        resolved = change.given(_view(memory, session_id))
        return lambda store: store.delete(session_id, resolved)

    return Operation(f"delete {session_id} with {change.text}", operation)


@st.composite
def _forking(draw: st.DrawFn) -> Operation:
    parent, seq, change = draw(_session), draw(st.none() | st.integers(-1, 8)), draw(_change(parts=False)).change
    child = head(draw(_any_session), draw(_moment), user_id=draw(_user), tags=list(draw(_tags)))
    text = f"fork {parent} at {seq} as {_short(child)} with {_short(change)}"
    return Operation(text, lambda _: lambda store: store.fork(parent, seq, child, change))


@st.composite
def _restoring(draw: st.DrawFn) -> Operation:
    source, target = draw(_session), draw(_any_session)

    def operation(memory: SessionStorage) -> Act:
        view = _view(memory, source)
        if view is None:
            return lambda store: store.session_exists(source)
        done = [record for record in view.records if record.status is not InvocationStatus.RUNNING]
        once = list({record.invocation_id: record for record in done}.values())
        copy = view.metadata.model_copy(update={"session_id": target})
        return lambda store: store.restore(view.model_copy(update={"metadata": copy, "records": once}))

    return Operation(f"restore {source} as {target}", operation)


@st.composite
def _saving(draw: st.DrawFn) -> Operation:
    session_id, second = draw(_session), draw(_moment)
    number, word, keys = draw(st.integers(20, 25)), draw(_one(WORDS)), draw(_key_sets)
    clear, invocation = draw(_few) == 0, draw(_one((None, "c4", "c5")))
    purpose, custom = draw(_one(PURPOSES)), draw(st.dictionaries(_one("mn"), _values, max_size=1))

    def act(store: SessionStorage) -> object:
        session = store.load_session(session_id) or Session(head(session_id, second))
        session.clock = lambda: at(second)
        if clear:
            session.clear_conversation()
            session.clear_data()
        session.metadata = session.metadata.model_copy(update={"purpose": purpose, "custom_metadata": custom})
        session.add_message("user", word, message_id=f"m{number}")
        for key, value in keys.items():
            session.set(key, value)
        if invocation is not None:
            session.add_invocation(invocation, 1.5)
        store.save_session(session)
        return session

    text = f"save {session_id} at {second}: m{number} {word!r}, keys {keys}, {invocation}{', cleared' * clear}"
    text += f", purpose {purpose!r}, metadata {custom}"
    return Operation(text, lambda _: act)


@st.composite
def _cleaning(draw: st.DrawFn) -> Operation:
    cutoff = at(draw(_moment))
    return Operation(f"clean up to {cutoff}", lambda _: lambda store: sorted(store.cleanup_sessions(cutoff)))


@st.composite
def _asking(draw: st.DrawFn) -> Operation:
    query = Query(
        as_user=draw(_one((None, None, "ana"))),
        user_id=draw(_one((None, None, "bob"))),
        ids=tuple(draw(st.lists(_any_session, max_size=2))),
        id_prefix=draw(_one((None, None, None, "a"))),
        status=tuple(draw(st.lists(_one(tuple(SessionStatus)), max_size=2))),
        tags=draw(_tags),
        match=draw(_one(("any", "all"))),
        text=draw(_one(("", "", "fix", "É", "i a"))),
        tool=draw(_one((None, None, *TOOLS))),
        created_after=draw(st.none() | _moment.map(at)),
        updated_before=draw(st.none() | _moment.map(at)),
        has_errors=draw(_one((None, None, True, False))),
        min_cost=draw(_one((None, None, 0.0, 0.1))),
        order=draw(_one(get_args(Order))),
        reverse=draw(st.booleans()),
        limit=draw(_one((1, 2, 100))),
    )
    word, group = draw(_one(WORDS)), draw(_one((None, *get_args(GroupBy))))

    def act(store: SessionStorage) -> object:
        return [
            joined(lambda cursor: store.find(query, cursor)),
            joined(lambda cursor: store.search(word, query, cursor)),
            store.totals(query, group),
        ]

    return Operation(f"ask for {word!r}, {group} in {_short(query)}", lambda _: act)


_operation: st.SearchStrategy[Operation] = st.one_of(
    *(_committing() for _ in range(5)),
    *(_creating() for _ in range(2)),
    _saving(),
    _forking(),
    _restoring(),
    _deleting(),
    _recording(),
    _cleaning(),
    _asking(),
)


# what is asked at the end


def _questions() -> Iterator[tuple[str, Act]]:
    for session_id in SESSIONS + COPIES:
        yield f"the whole of {session_id}", lambda store, name=session_id: _view(store, name)
        yield f"{session_id} loaded", lambda store, name=session_id: store.load_session(name)
        for want in _wants():
            yield f"{want} of {session_id}", lambda store, name=session_id, want=want: store.read(name, want)
    for query in _queries():
        yield str(query), lambda store, query=query: joined(lambda cursor: store.find(query, cursor))
    for query, word in product(_narrow(), (*WORDS, "apple pear", "x")):
        yield f"{word} in {query}", lambda store, q=query, w=word: joined(lambda cursor: store.search(w, q, cursor))
    for query, group in product(_narrow(), (None, *get_args(GroupBy))):
        yield f"{group} of {query}", lambda store, query=query, group=group: store.totals(query, group)
    for calls in _record_queries():
        yield str(calls), lambda store, query=calls: joined(lambda cursor: store.invocations(query, cursor))


def _wants() -> list[Want]:
    return [
        Want(names=True, prefix="k"),
        Want(prefix=".", keys=("k",)),
        Want(messages=2, roles=("user", "tool"), records=1),
        Want(prefix="", prefix_chars=12),
        Want(any_keys=2, after_key="k"),
        Want(records=3, usage=True),
        Want(messages=3, before=6),
        Want(messages=2, after=2, order="oldest", as_user="ana"),
    ]


def _narrow() -> list[Query]:
    fields: list[dict[str, Any]] = [
        *({}, {"reverse": True}, {"as_user": "ana"}, {"user_id": "bob"}, {"ids": ("a", "c")}),
        *({"tags": ("x", "É")}, {"tags": ("x", "y"), "match": "all"}, {"status": (SessionStatus.ACTIVE,)}),
    ]
    return [Query(**one, limit=3) for one in fields]


def _queries() -> list[Query]:
    orders = [Query(order=order, reverse=reverse, limit=2) for order in get_args(Order) for reverse in (False, True)]
    filters: list[dict[str, Any]] = [
        *({"text": "fix"}, {"text": "e"}, {"purpose": "fix it"}, {"tool": "ls"}, {"has_errors": True}),
        *({"min_cost": 0.1}, {"created_after": at(3)}, {"updated_before": at(9)}, {"updated_after": at(9)}),
        {"created_before": at(9)},
        *({"tags": ("y",), "order": "cost"}, {"as_user": "bob", "order": "created", "reverse": True}),
        *({"id_prefix": "a"}, {"id_prefix": "c", "tags": ("x",)}),
    ]
    return [*orders, *_narrow(), *(Query(**one) for one in filters)]


def _record_queries() -> list[InvocationQuery]:
    fields: list[dict[str, Any]] = [
        *({}, {"reverse": True}, {"as_user": "ana"}, {"session_id": "a"}, {"session_id": "c", "reverse": True}),
        *({"invocation_id": "c1"}, {"tool": "ls"}, {"kind": "work"}, {"kind": "session"}, {"kind": "counted"}),
        *({"scope": "session"}, {"scope": "user", "user_id": "ana"}, {"scope": "user"}),
        *({"status": status} for status in InvocationStatus),
    ]
    return [InvocationQuery(**one, limit=2) for one in fields]
