"""One manager for many threads: nothing is lost, and nothing is given twice."""

from __future__ import annotations

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mcp_sessions import SessionManager
from mcp_sessions.models import Want
from tests.stores import KINDS, open_store

THREADS = 64


@pytest.mark.parametrize("kind", KINDS)
def test_sixty_four_threads_on_one_session_lose_nothing(kind: str, tmp_path: Path) -> None:
    with SessionManager(open_store(kind, tmp_path)) as manager:
        manager.create_session("a")

        def work(number: int) -> list[int]:
            seqs: list[int] = []
            for turn in range(10):
                with manager.call("work", "a", caller=f"thread {number}") as call:
                    call.draft.add_message("user", f"{number} {turn}")
                    call.draft.set_value(f"{number} {turn}", turn)
                assert call.committed is not None
                seqs += call.committed.seqs
                with manager.call("look", "a", reads=True):
                    manager.get_value("a", f"{number} {turn}")
            return seqs

        with ThreadPoolExecutor(THREADS) as pool:
            seqs = [seq for given in pool.map(work, range(THREADS)) for seq in given]
        manager.reads.flush()
        session = manager.get_session("a")
    assert session is not None
    assert sorted(seqs) == list(range(1, 641))
    assert {message.content for message in session.conversation} == set(session.data)
    head = session.metadata
    assert (head.message_count, head.last_seq, head.total_invocations, head.revision) == (640, 640, 1280, 641)


@pytest.mark.parametrize("kind", KINDS)
def test_of_sixty_four_threads_one_creates_a_session(kind: str, tmp_path: Path) -> None:
    with SessionManager(open_store(kind, tmp_path)) as manager:

        def create(_: int) -> bool:
            try:
                manager.create_session("a")
            except ValueError:
                return False
            return True

        with ThreadPoolExecutor(THREADS) as pool:
            assert sum(pool.map(create, range(THREADS))) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_of_sixty_four_threads_each_expected_version_is_won_once(kind: str, tmp_path: Path) -> None:
    with SessionManager(open_store(kind, tmp_path)) as manager:
        manager.create_session("a", data={"count": 0})

        def count(_: int) -> None:
            while True:
                value = manager.view("a", Want(keys=("count",))).data["count"]
                try:
                    manager.set_value("a", "count", value.value + 1, expected_version=value.version)
                except ValueError:
                    continue
                return

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(count, range(THREADS)))
        assert manager.get_value("a", "count") == THREADS


def test_a_thousand_sessions_of_sixty_four_threads_are_all_there_and_none_stays_in_memory(tmp_path: Path) -> None:
    with SessionManager(open_store("sqlite", tmp_path)) as manager:

        def live(number: int) -> None:
            session = manager.create_session(f"s{number}", tags=[f"t{number % 10}"])
            manager.add_conversation_message(session.session_id, "user", f"hello from {number}")
            manager.complete_session(session.session_id)

        live(-1)
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(live, range(1000)))
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(manager.list_sessions(limit=2000)) == 1001
        assert len(manager.list_sessions(tags=["t3"], status="completed", limit=2000)) == 100
        assert manager.totals()[0].messages == 1001
    assert after - before <= 50 << 20
