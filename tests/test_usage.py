"""Tokens and money: what was reported wins, what is not known is not 0, and nothing counts twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcp_sessions import InvocationConflictError, SessionManager
from mcp_sessions.models import Invocation, tokens
from tests.stores import SetClock


@pytest.fixture(autouse=True)
def _session(manager: SessionManager) -> None:
    manager.create_session("a")


def _only(manager: SessionManager) -> Invocation:
    (record,) = manager.invocations("a").items
    return record


def test_a_call_made_elsewhere_is_counted(manager: SessionManager, clock: SetClock) -> None:
    record = manager.link_invocation("a", "inv1", "git_tool", duration_ms=100)
    assert record == _only(manager)
    assert (record.session_id, record.status, record.kind, record.duration_ms) == ("a", "ok", "work", 100)
    assert (clock.now - record.started_at).total_seconds() == 0.1
    head = manager.metadata("a")
    assert (head.total_invocations, head.total_duration_ms, head.tools_used) == (1, 100.0, ["git_tool"])


def test_an_id_is_counted_once(manager: SessionManager) -> None:
    first = manager.link_invocation("a", "inv1", "grep", duration_ms=100, result="first")
    again = manager.link_invocation("a", "inv1", "grep", duration_ms=200, result="second")
    assert again == first
    assert manager.metadata("a").total_duration_ms == 100.0
    with pytest.raises(InvocationConflictError, match="inv1 is taken by another call of grep"):
        manager.link_invocation("a", "inv1", "ls")


def test_a_failed_call_made_elsewhere_says_why(manager: SessionManager) -> None:
    record = manager.link_invocation(
        "a", "i1", "grep", error="x" * 5000, arguments={"token": "hunter2"}, result="y" * 3000
    )
    assert record.error is not None
    assert (record.status, record.error.type, len(record.error.message)) == ("error", "Error", 2000)
    assert record.arguments == {"token": "[redacted]"}
    assert record.result["chars"] == 3000
    assert manager.metadata("a").failed_invocations == 1


def test_where_a_call_left_its_files_is_kept_under_an_internal_key(manager: SessionManager) -> None:
    manager.link_invocation("a", "i1", "grep", "/somewhere/history/i1")
    manager.storage.link_invocation("a", "i2", "elsewhere")
    session = manager.get_session("a")
    assert session is not None
    assert session.data == {}
    assert manager.get_value("a", ".invocation_dir.i1") == "/somewhere/history/i1"
    assert manager.get_value("a", ".invocation_dir.i2") == str(Path("elsewhere").absolute())


def test_a_reported_cost_wins_over_an_estimate(manager: SessionManager) -> None:
    assert manager.record_usage("a", "gpt-4o", 1_000_000, cost=0.125) == 0.125
    record = manager.link_invocation("a", "i1", "model", model="gpt-4o", token_usage=tokens(1000), cost=0.0)
    assert (record.cost, record.cost_source) == (0.0, "reported")
    assert manager.metadata("a").estimated_cost == 0.125


def test_a_cost_that_is_not_reported_is_estimated(manager: SessionManager) -> None:
    assert manager.record_usage("a", "gpt-4o", 10_000, 1_000, cache_read_tokens=4_000) == 0.03
    record = manager.link_invocation("a", "i1", "model", model="gpt-4o", token_usage=tokens(10_000, 1_000))
    assert (record.cost, record.cost_source) == (0.035, "estimated")
    head = manager.metadata("a")
    assert (head.estimated_cost, head.unpriced_invocations) == (0.065, 0)
    assert head.token_usage == tokens(20_000, 2_000, 4_000)


@pytest.mark.parametrize(("model", "count"), [("no-such-model", 10), (None, 10), ("gpt-4o", None), ("x" * 1000, 10)])
def test_an_unknown_cost_is_unpriced_and_never_zero(
    manager: SessionManager, model: str | None, count: int | None
) -> None:
    usage = None if count is None else tokens(count)
    record = manager.link_invocation("a", "i1", "model", model=model, token_usage=usage)
    assert (record.cost, record.cost_source) == (None, "unknown")
    head = manager.metadata("a")
    assert (head.estimated_cost, head.unpriced_invocations) == (0.0, 1)


def test_a_call_without_a_model_costs_nothing_and_is_not_unpriced(manager: SessionManager) -> None:
    manager.link_invocation("a", "i1", "grep")
    with manager.call("tool", "a"):
        pass
    assert manager.metadata("a").unpriced_invocations == 0


def test_usage_counts_once_for_an_id(manager: SessionManager) -> None:
    for _ in range(2):
        assert manager.record_usage("a", "gpt-4o", 1000, invocation_id="u1") == 0.0025
    assert manager.record_usage("a", "no-such-model", 5, invocation_id="u2") is None
    head = manager.metadata("a")
    assert (head.token_usage["input"], head.estimated_cost, head.unpriced_invocations) == (1005, 0.0025, 1)


def test_usage_is_no_call(manager: SessionManager) -> None:
    manager.record_usage("a", "gpt-4o", 1000)
    assert manager.metadata("a").total_invocations == 0
    assert manager.invocations("a").items == []


def test_a_long_context_is_priced_by_the_call_and_not_by_the_sum(manager: SessionManager) -> None:
    for _ in range(2):
        manager.record_usage("a", "claude-sonnet-4-5", 150_000)
    assert manager.metadata("a").estimated_cost == 0.9
    manager.record_usage("a", "claude-sonnet-4-5", 300_000)
    assert manager.metadata("a").estimated_cost == 2.7


def test_a_calls_own_usage_is_priced_like_any(manager: SessionManager) -> None:
    with manager.call("agent", "a") as call:
        call.model, call.token_usage = "gpt-4o", tokens(10_000, 1_000)
    assert (_only(manager).cost, _only(manager).cost_source) == (0.035, "estimated")
    assert manager.metadata("a").estimated_cost == 0.035


def test_a_failed_calls_usage_counts(manager: SessionManager) -> None:
    with pytest.raises(RuntimeError), manager.call("agent", "a") as call:
        call.model, call.token_usage = "gpt-4o", tokens(10_000, 1_000)
        raise RuntimeError
    assert manager.metadata("a").estimated_cost == 0.035


def test_a_running_calls_usage_counts_when_it_ends(manager: SessionManager) -> None:
    with manager.call("agent", "a", slow=True) as call:
        call.model, call.token_usage = "gpt-4o", tokens(1000)
        assert manager.metadata("a").total_invocations == 0
    head = manager.metadata("a")
    assert (head.total_invocations, head.token_usage["input"], head.estimated_cost) == (1, 1000, 0.0025)


def test_a_messages_tokens_describe_it_and_are_not_counted(manager: SessionManager) -> None:
    manager.add_conversation_message("a", "assistant", "x", model="gpt-4o", token_usage=tokens(5))
    assert manager.metadata("a").token_usage == tokens()


def test_many_small_costs_add_up_exactly(manager: SessionManager) -> None:
    for _ in range(100):
        manager.record_usage("a", "gpt-4o", cost=0.1)
    assert manager.metadata("a").estimated_cost == 10.0
