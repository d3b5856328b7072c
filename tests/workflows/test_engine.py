"""Runs: what they leave in their session, in which order steps go, and what becomes of failures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_sessions import MemorySessionStorage, SessionManager
from mcp_sessions.agents import Answer, Scripted
from mcp_sessions.errors import (
    InvalidArgumentError,
    SessionNotFoundError,
    WorkflowDefinitionError,
    WorkflowError,
    WorkflowMismatchError,
    WorkflowNotFoundError,
)
from mcp_sessions.models import Want, tokens
from mcp_sessions.workflows import (
    WorkflowDefinition,
    WorkflowEngine,
    WorkflowExecutionResult,
    WorkflowStatus,
)
from tests.stores import SetClock
from tests.workflows.desk import Log, Runs, until

pytestmark = pytest.mark.anyio
TWO = """
name: two
inputs: {n: {type: integer, default: 2}}
steps:
  - {id: a, tool: note, with: {what: "{{ inputs.n * 10 }}"}}
  - {id: b, set: {seen: "{{ steps.a.result }}", text: "n is {{ inputs.n }}"}}
outputs: {seen: "{{ steps.b.result.seen }}"}
"""


async def test_a_run_is_a_session_with_its_inputs_results_outputs_and_records(run: Runs) -> None:
    result = await run(TWO, {"n": 4}, "r1")
    assert (result.status, result.outputs, result.error) == (WorkflowStatus.COMPLETED, {"seen": 40}, None)
    session = run.manager.get_session("r1")
    assert session is not None
    assert {key: value for key, value in session.data.items() if not key.startswith(".")} == {
        "workflow_input": {"n": 4},
        "workflow_output": {"seen": 40},
        "workflow_status": "completed",
        "step.a": 40,
        "step.b": {"seen": 40, "text": "n is 4"},
    }
    head = session.metadata
    assert (head.status, head.purpose, head.tags) == ("completed", "Workflow: two", ["workflow", "two"])
    records = run.manager.invocations("r1").items
    assert [(one.tool_name, one.status, one.caller) for one in records] == [
        ("workflow.set", "ok", "workflow:two"),
        ("note", "ok", "workflow:two"),
    ]
    assert head.total_invocations == 1  # the tool is work, a step that sets a value is not


async def test_a_finished_run_gives_what_it_gave_and_runs_nothing(run: Runs, log: Log) -> None:
    first = await run(TWO, {"n": 4}, "r1")
    assert await run(TWO, {"n": 4}, "r1") == first
    assert await run(TWO, None, "r1") == first
    assert log.calls == [40]


async def test_a_session_without_a_run_gets_one_and_keeps_what_it_has(run: Runs) -> None:
    run.manager.create_session("mine", data={"own": 1}, tags=["x"])
    run.manager.add_conversation_message("mine", "user", "Go.")
    result = await run(TWO, {"n": 1}, "mine")
    session = run.manager.get_session("mine")
    assert result.status is WorkflowStatus.COMPLETED
    assert session is not None
    assert (session.data["own"], session.data["step.a"], len(session.conversation)) == (1, 10, 1)
    assert session.metadata.tags == ["x", "workflow", "two"]


async def test_what_stood_under_the_key_of_a_result_is_none_of_it(run: Runs) -> None:
    run.manager.create_session("s", data={"step.a": {"approved": True}})
    text = "name: w\nsteps: [{id: a, tool: note}, {id: ok, approve: Well}, {id: b, set: '{{ [steps.a.result] }}'}]"
    await run(text, None, "s")
    assert (await run.engine.respond("s", "ok", True)).step_results["b"].result == [None]


async def test_another_text_or_other_inputs_are_refused_in_the_session_of_a_run(quick: Runs, log: Log) -> None:
    await quick(TWO, {"n": 4}, "r1")
    with pytest.raises(WorkflowMismatchError, match="with other inputs"):
        await quick(TWO, {"n": 5}, "r1")
    with pytest.raises(WorkflowMismatchError, match="holds a run of 'two'"):
        await quick(TWO.replace("n is", "n was"), {"n": 4}, "r1")
    assert log.calls == [40]


@pytest.mark.parametrize(
    ("inputs", "fact"),
    [
        ({}, "Required input 'who' not provided"),
        ({"who": 1}, "Input 'who' of w is an integer, not string"),
        ({"who": "a", "wo": 2}, "Unknown input 'wo' of w: Did you mean 'who'?"),
        ({"who": "a", "n": True}, "Input 'n' of w is a boolean, not integer"),
        ({"who": "a", "size": "xl"}, "Input 'size' of w is not one of s, m"),
    ],
)
async def test_inputs_are_checked_before_a_session_is_made(quick: Runs, inputs: dict[str, Any], fact: str) -> None:
    text = """
name: w
inputs:
  who: {type: string, required: true}
  n: integer
  size: {type: string, enum: [s, m], default: s}
steps: [{id: a, set: "{{ inputs.size }}"}]
"""
    with pytest.raises(InvalidArgumentError) as refused:
        await quick(text, inputs, "r")
    assert fact in str(refused.value)
    with pytest.raises(SessionNotFoundError):
        quick.manager.metadata("r")


async def test_defaults_are_applied_and_what_may_be_left_out_is_null(quick: Runs) -> None:
    text = "{name: w, inputs: {a: {default: [1]}, b: string}, steps: [{id: s, set: ['{{ inputs.a }}', '{{ b }}']}]}"
    result = await quick(text)
    assert result.step_results["s"].result == [[1], None]


async def test_a_step_begins_when_what_it_needs_is_done_and_waits_for_no_wave(quick: Runs, log: Log) -> None:
    text = """
name: w
steps:
  - {id: long, tool: slow, with: {what: long, seconds: 1.0}}
  - {id: a, needs: [], tool: slow, with: {what: a, seconds: 0.01}}
  - {id: b, needs: [a], tool: note, with: {what: b}}
  - {id: c, needs: [b], tool: note, with: {what: c}}
  - {id: end, needs: [long, c], tool: note, with: {what: end}}
"""
    await quick(text)
    assert log.calls == ["a", "b", "c", "long", "end"]


async def test_without_needs_steps_go_in_the_order_in_which_they_are_written(quick: Runs, log: Log) -> None:
    text = """
name: w
steps:
  - {id: a, tool: slow, with: {what: 1}}
  - {id: b, tool: note, with: {what: 2}}
  - {id: c, tool: note, with: {what: 3}}
"""
    await quick(text)
    assert log.calls == [1, 2, 3]


async def test_what_a_step_reads_it_needs(quick: Runs, log: Log) -> None:
    text = """
name: w
steps:
  - {id: last, needs: [other], tool: note, with: {what: "{{ steps.first.result }}"}}
  - {id: other, tool: note, with: {what: other}}
  - {id: first, tool: slow, with: {what: first}}
"""
    await quick(text)
    assert log.calls == ["other", "first", "first"]


async def test_no_more_than_max_parallel_are_at_work_at_once(quick: Runs, log: Log) -> None:
    steps = "\n".join(f"  - {{id: s{n}, needs: [], tool: slow, with: {{what: {n}}}}}" for n in range(8))
    await quick(f"name: w\nmax_parallel: 3\nsteps:\n{steps}\n  - {{id: end, needs: [s0], set: 1}}")
    assert log.most_at_once == 3


async def test_a_failure_stops_the_run_and_what_is_left_is_skipped_with_the_reason(quick: Runs, log: Log) -> None:
    text = """
name: w
steps:
  - {id: a, tool: note, with: {what: 1}}
  - {id: b, fail: "no {{ steps.a.result }}"}
  - {id: c, tool: note, with: {what: 3}}
outputs: {a: "{{ steps.a.result }}", c: "{{ steps.c.result.x }}"}
"""
    result = await quick(text, None, "r1")
    assert (result.status, result.error) == (WorkflowStatus.FAILED, "Step 'b' failed: no 1")
    assert quick.statuses(result) == {"a": "completed", "b": "failed", "c": "skipped"}
    assert result.step_results["c"].message == "Step 'b' failed."
    error = result.step_results["b"].error
    assert error is not None
    assert (error.type, error.message) == ("Fail", "no 1")
    assert result.outputs == {"a": 1}
    assert quick.manager.metadata("r1").status == "failed"
    assert log.calls == [1]


async def test_on_error_continue_goes_on_and_the_run_is_partial(quick: Runs) -> None:
    text = """
name: w
steps:
  - {id: a, fail: no, on_error: continue}
  - {id: b, set: "{{ steps.a.error.message + ' ' + steps.a.status }}"}
"""
    result = await quick(text, None, "r1")
    assert (result.status, result.step_results["b"].result) == (WorkflowStatus.PARTIAL, "no failed")
    assert quick.manager.metadata("r1").status == "failed"


async def test_a_run_in_which_all_failed_is_failed(quick: Runs) -> None:
    result = await quick("name: w\nsteps: [{id: a, fail: no, on_error: continue}]")
    assert result.status is WorkflowStatus.FAILED


async def test_a_step_for_errors_is_run_on_an_error_alone(quick: Runs, log: Log) -> None:
    text = """
name: w
inputs: {bad: boolean}
steps:
  - {id: a, switch: [{if: inputs.bad, steps: [{id: f, fail: no}]}, {else: [{id: g, set: 1}]}], on_error: mend}
  - {id: mend, tool: note, with: {what: "{{ steps.a.error.message }}"}}
  - {id: b, tool: note, with: {what: b}}
"""
    good = await quick(text, {"bad": False})
    assert (good.status, quick.statuses(good)["mend"], log.calls) == (WorkflowStatus.COMPLETED, "skipped", ["b"])
    bad = await quick(text, {"bad": True})
    assert (bad.status, quick.statuses(bad)["mend"]) == (WorkflowStatus.PARTIAL, "completed")
    assert quick.statuses(bad)["b"] == "skipped"
    assert log.calls == ["b", "step 'f' failed: no"]


async def test_a_condition_decides_and_what_needs_a_skipped_step_runs(quick: Runs, log: Log) -> None:
    text = """
name: w
inputs: {go: boolean}
steps:
  - {id: a, if: inputs.go, tool: note, with: {what: a}}
  - {id: b, if: "{{ !inputs.go }}", tool: note, with: {what: "{{ steps.a.status }}"}}
"""
    assert quick.statuses(await quick(text, {"go": True})) == {"a": "completed", "b": "skipped"}
    assert quick.statuses(await quick(text, {"go": False})) == {"a": "skipped", "b": "completed"}
    assert log.calls == ["a", "skipped"]


async def test_a_condition_that_is_neither_true_nor_false_fails_the_step(quick: Runs) -> None:
    result = await quick("name: w\nsteps: [{id: a, if: '1 + 1', set: 1}]")
    assert "a condition is true or false, not int" in str(result.error)


async def test_a_step_is_tried_again_after_a_pause_that_grows(quick: Runs) -> None:
    text = """
name: w
steps:
  - id: a
    tool: flaky
    with: {name: x, failures: 2}
    retry: {max_attempts: 3, delay: 0.2, backoff: exponential}
"""
    begin = anyio.current_time()
    result = await quick(text)
    step = result.step_results["a"]
    assert (step.result, step.attempts, step.retry_count) == ("x after 2", 3, 2)
    assert anyio.current_time() - begin >= 0.6
    records = quick.manager.invocations(result.session_id, "flaky").items
    assert [one.status for one in records] == ["ok", "error", "error"]


async def test_a_step_that_fails_too_often_fails_with_the_last_error(quick: Runs) -> None:
    text = "name: w\nsteps: [{id: a, tool: flaky, with: {name: x, failures: 9}, retry: {max_attempts: 2, delay: 0.01}}]"
    step = (await quick(text)).step_results["a"]
    assert step.error is not None
    assert (step.attempts, step.error.message) == (2, "failure 2 of x")


async def test_defaults_hold_for_steps_that_say_nothing_else(quick: Runs) -> None:
    text = """
name: w
defaults: {timeout: 50ms, retry: {max_attempts: 2, delay: 0.01}, on_error: continue}
steps:
  - {id: a, tool: flaky, with: {name: a, failures: 1}}
  - {id: b, tool: flaky, with: {name: b, failures: 1}, retry: 1}
  - {id: c, tool: slow, with: {seconds: 9}}
  - {id: d, tool: slow, with: {seconds: 0.2}, timeout: 5s}
"""
    assert quick.statuses(await quick(text)) == {"a": "completed", "b": "failed", "c": "failed", "d": "completed"}


async def test_a_mistake_that_no_retry_mends_is_not_retried(quick: Runs) -> None:
    text = "name: w\nsteps: [{id: a, tool: session_get, with: {session_id: '?'}, retry: {max_attempts: 5, delay: 9}}]"
    step = (await quick(text)).step_results["a"]
    assert step.attempts == 1
    assert step.error is not None
    assert step.error.type == "InvalidArgumentError"


async def test_a_step_that_takes_too_long_is_ended(quick: Runs, log: Log) -> None:
    text = "name: w\nsteps: [{id: a, tool: slow, with: {seconds: 60}, timeout: 50ms}]"
    with anyio.fail_after(20):
        result = await quick(text)
    error = result.step_results["a"].error
    assert error is not None
    assert (error.type, error.message) == ("Timeout", "It took longer than 0.05 s, which is its limit.")
    assert (log.calls, log.at_once) == ([], 0)
    assert quick.manager.invocations(result.session_id, "slow").items[0].status == "cancelled"


async def test_the_time_of_a_step_begins_when_there_is_room_for_it(quick: Runs) -> None:
    text = """
name: w
max_parallel: 1
defaults: {timeout: 1.5s}
steps: [{id: p, parallel: [{id: a, tool: slow, with: {seconds: 1}}, {id: b, tool: slow, with: {seconds: 1}}]}]
"""
    assert (await quick(text)).status is WorkflowStatus.COMPLETED


async def test_a_tool_that_gave_up_by_itself_says_why(quick: Runs, log: Log) -> None:
    @log.toolbox.tool(title="Impatient")
    def impatient(call: Any) -> None:
        """Give up."""
        raise TimeoutError("the database did not answer")

    result = await quick("name: w\nsteps: [{id: a, tool: impatient, timeout: 60s}]")
    error = result.step_results["a"].error
    assert error is not None
    assert (error.type, error.message) == ("TimeoutError", "the database did not answer")


@pytest.mark.parametrize(
    ("outputs", "of_step", "fault"),
    [
        ("{o: {value: '{{ steps.a.result.n }}', type: string}}", "{}", "Output 'o' is an integer, not string."),
        ("{o: {value: '{{ steps.a.result.n }}', type: integer}}", "{}", None),
        ("{m: {type: string}}", "{m: n}", "Output 'm' is an integer, not string."),
        ("{m: {type: integer}}", "{m: result.n}", None),
        ("{}", "{m: versio}", "Output 'a.m': the step gave nothing at 'versio'."),
        ("{m: {}}", "{m: list.1.x}", None),
    ],
)
async def test_an_output_is_there_and_of_its_type_or_the_run_failed(
    quick: Runs, outputs: str, of_step: str, fault: str | None
) -> None:
    step = f"{{id: a, set: {{n: 1, list: [0, {{x: 2}}]}}, outputs: {of_step}}}"
    result = await quick(f"name: w\noutputs: {outputs}\nsteps: [{step}]")
    assert result.error == fault
    assert (result.status is WorkflowStatus.COMPLETED) == (fault is None)


async def test_what_is_large_is_read_as_anything_else_is(quick: Runs) -> None:
    text = """
name: w
inputs: {many: list, few: list}
steps:
  - {id: a, set: "{{ inputs.many[29999].n }}"}
  - {id: b, set: "{{ size(inputs.many) + size(inputs.few) }} of {{ inputs['few'][0] }}"}
outputs: {b: "{{ steps.b.result }}", last: "{{ steps.a.result + 1 }}"}
"""
    result = await quick(text, {"many": [{"n": n} for n in range(30_000)], "few": [1]})
    assert result.outputs == {"b": "30001 of 1", "last": 30_000}


async def test_the_error_of_a_run_names_a_few_of_many_failed_steps(quick: Runs) -> None:
    text = "name: w\nsteps: [{id: l, for_each: '{{ inputs.n }}', on_error: continue, steps: [{id: f, fail: no}]}]"
    result = await quick("inputs: {n: list}\n" + text, {"n": [0] * 30})
    assert result.error is not None
    assert result.error.endswith("l[18].f and 20 more.")


@pytest.mark.parametrize(
    ("key", "value", "fact"),
    [
        (".workflow.run", {"name": 1}, "validation error"),
        ("workflow_status", "banana", "'banana' is not a valid WorkflowStatus"),
        ("workflow_status", None, "key 'workflow_status'"),
        ("workflow_output", "x", "key workflow_output has no object"),
    ],
)
async def test_a_run_that_was_written_over_is_told_and_hides_no_other(
    quick: Runs, key: str, value: Any, fact: str
) -> None:
    for session_id in ("r1", "r2"):
        await quick(TWO, None, session_id)
    quick.manager.reopen_session("r1")
    if value is None:
        quick.manager.unset_value("r1", key)
    else:
        quick.manager.set_value("r1", key, value)
    assert [one.session_id for one in quick.engine.list_runs()] == ["r2"]
    with pytest.raises(WorkflowError, match="The run in session r1 cannot be read") as refused:
        quick.engine.status("r1")
    assert fact in str(refused.value)


async def test_a_run_that_takes_too_long_is_ended_and_failed(quick: Runs) -> None:
    text = """
name: w
timeout: 0.3s
steps:
  - {id: a, set: 1}
  - {id: b, tool: slow, with: {seconds: 60}}
"""
    with anyio.fail_after(20):
        result = await quick(text)
    assert (result.status, result.error) == (
        WorkflowStatus.FAILED,
        "The run took longer than 0.3 s, which is its limit.",
    )
    assert quick.statuses(result) == {"a": "completed", "b": "cancelled"}


async def test_the_time_of_a_run_stands_still_while_it_waits_and_begins_anew_with_it(
    tmp_path: Path, log: Log, clock: SetClock
) -> None:
    text = """
name: w
timeout: 1h
steps: [{id: ok, approve: "Go on?"}, {id: again, approve: "Still?"}, {id: b, tool: flaky, with: {name: b, failures: 1}}]
"""
    with SessionManager(MemorySessionStorage(), clock=clock) as manager:
        runs = Runs(manager, log)
        assert (await runs(text, None, "r1")).status is WorkflowStatus.WAITING
        clock.go_on(days=2)
        assert (await runs.engine.respond("r1", "ok", True)).waiting_for == {"again": "Still?"}
        clock.go_on(days=2)
        failed = await runs.engine.respond("r1", "again", True)
        assert failed.error == "Step 'b' failed: failure 1 of b"
        clock.go_on(days=2)
        assert (await runs.engine.resume("r1")).status is WorkflowStatus.COMPLETED


async def test_whoever_ends_the_session_of_a_run_cancels_it(run: Runs, log: Log) -> None:
    text = "name: w\nsteps: [{id: a, tool: note, with: {what: a}}, {id: b, tool: slow, with: {what: b, seconds: 1}}]"
    results: list[WorkflowExecutionResult] = []

    async def to_its_end() -> None:
        results.append(await run(text, None, "r1"))

    async with anyio.create_task_group() as group:
        group.start_soon(to_its_end)
        await until(lambda: log.at_once == 1)
        run.manager.complete_session("r1")
    assert (results[0].status, log.calls, log.at_once) == (WorkflowStatus.CANCELLED, ["a"], 0)
    assert results[0].error == "Its session was ended (completed) before it was over."
    assert [one.status for one in run.engine.list_runs()] == [WorkflowStatus.CANCELLED]
    assert (await run(text, None, "r1")).status is WorkflowStatus.CANCELLED  # nobody said that it is to go on
    run.manager.reopen_session("r1")
    done = await run(text, None, "r1")
    assert (done.status, log.calls) == (WorkflowStatus.COMPLETED, ["a", "b"])
    assert done.step_results["b"].attempts == 2


async def test_a_run_that_waits_is_cancelled_with_its_session_and_resumed_asks_anew(run: Runs) -> None:
    await run("name: w\nsteps: [{id: ok, approve: 'Well?'}]", None, "r1")
    run.manager.complete_session("r1", "abandoned")
    assert run.engine.status("r1").status is WorkflowStatus.CANCELLED
    with pytest.raises(InvalidArgumentError, match="does not wait"):
        await run.engine.respond("r1", "ok", True)
    assert (await run.engine.resume("r1")).waiting_for == {"ok": "Well?"}
    assert (await run.engine.respond("r1", "ok", True)).status is WorkflowStatus.COMPLETED


@pytest.mark.parametrize("status", ["ended", "unknown"])
async def test_a_step_whose_session_is_another_one_fails_without_its_run(run: Runs, status: str) -> None:
    run.manager.create_session("ended")
    run.manager.complete_session("ended")
    result = await run(
        f"name: w\nsteps: [{{id: a, on_error: continue, tool: session_set, "
        f"with: {{session_id: {status}, key: k, value: 1}}}}, {{id: b, set: 1}}]"
    )
    assert run.statuses(result) == {"a": "failed", "b": "completed"}
    error = result.step_results["a"].error
    assert error is not None
    assert f"Session {status}" in error.message


async def test_a_session_that_was_opened_again_goes_on_where_its_run_failed(run: Runs, log: Log) -> None:
    text = """
name: w
steps: [{id: a, tool: note, with: {what: a}}, {id: b, tool: flaky, with: {name: b, failures: 1}}]
"""
    assert (await run(text, None, "r1")).status is WorkflowStatus.FAILED
    assert (await run(text, None, "r1")).status is WorkflowStatus.FAILED
    run.manager.reopen_session("r1")
    assert (await run(text, None, "r1")).status is WorkflowStatus.COMPLETED
    assert log.calls == ["a"]


async def test_a_failure_counts_although_its_process_ended_before_the_next_attempt(run: Runs) -> None:
    text = "name: w\nsteps: [{id: a, tool: flaky, with: {name: a, failures: 9}, retry: {max_attempts: 2, delay: 60s}}]"
    async with anyio.create_task_group() as group:
        group.start_soon(run, text, None, "r1")
        await until(lambda: run.heard != [])
        await until(lambda: run.statuses(run.engine.status("r1")) == {"a": "pending"})
        group.cancel_scope.cancel()
    result = await run.engine.resume("r1")
    assert (result.error, result.step_results["a"].attempts) == ("Step 'a' failed: failure 2 of a", 2)


async def test_a_cancelled_run_ends_what_is_at_work_and_begins_nothing(run: Runs, log: Log) -> None:
    text = """
name: w
steps:
  - {id: a, tool: note, with: {what: a}}
  - {id: b, tool: slow, with: {what: b, seconds: 60}}
  - {id: c, tool: note, with: {what: c}}
"""
    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(run, text, None, "r1")
            await until(lambda: log.at_once == 1)
            told = await WorkflowEngine(run.manager).cancel("r1", "not today")
    assert (told.status, told.error) == (WorkflowStatus.CANCELLED, "not today")
    assert run.statuses(told) == {"a": "completed", "b": "cancelled"}
    assert run.manager.metadata("r1").status == "abandoned"
    assert log.calls == ["a"]
    assert (await run.engine.cancel("r1")).error == "not today"


async def test_a_run_that_was_left_is_cancelled_by_whoever_comes(run: Runs, log: Log) -> None:
    text = "name: w\nsteps: [{id: b, tool: slow, with: {what: b, seconds: 60}}]"
    async with anyio.create_task_group() as group:
        group.start_soon(run, text, None, "r1")
        await until(lambda: log.at_once == 1)
        group.cancel_scope.cancel()
    assert run.engine.status("r1").status is WorkflowStatus.RUNNING
    assert not run.engine.status("r1").at_work
    assert (await run.engine.cancel("r1")).status is WorkflowStatus.CANCELLED


async def test_a_run_that_was_left_goes_on_where_it_was(run: Runs, log: Log) -> None:
    text = """
name: w
steps:
  - {id: a, tool: note, with: {what: a}}
  - {id: b, tool: slow, with: {what: b, seconds: 0.3}}
  - {id: c, tool: note, with: {what: c}}
"""
    async with anyio.create_task_group() as group:
        group.start_soon(run, text, None, "r1")
        await until(lambda: log.at_once == 1)
        group.cancel_scope.cancel()
    result = await run.engine.resume("r1")
    assert (result.status, log.calls) == (WorkflowStatus.COMPLETED, ["a", "b", "c"])
    assert result.step_results["b"].attempts == 2


async def test_resume_begins_anew_at_what_failed_and_at_nothing_else(run: Runs, log: Log) -> None:
    text = """
name: w
steps:
  - {id: a, tool: note, with: {what: a}}
  - {id: b, tool: flaky, with: {name: x, failures: 1}}
  - {id: c, tool: note, with: {what: c}}
outputs: {b: "{{ steps.b.result }}"}
"""
    assert (await run(text, None, "r1")).status is WorkflowStatus.FAILED
    result = await run.engine.resume("r1")
    assert (result.status, result.error, result.outputs) == (WorkflowStatus.COMPLETED, None, {"b": "x after 1"})
    assert log.calls == ["a", "c"]
    assert run.manager.metadata("r1").status == "completed"
    assert (await run.engine.resume("r1")) == result
    assert log.calls == ["a", "c"]


async def test_resume_in_a_loop_runs_what_failed_there_and_keeps_the_rest(run: Runs, log: Log) -> None:
    text = """
name: w
steps:
  - id: l
    for_each: [0, 1, 2]
    as: n
    on_error: continue
    max_parallel: 1
    steps:
      - {id: a, tool: note, with: {what: "{{ n }}"}}
      - {id: s, set: "{{ n * 10 }}"}
      - {id: b, tool: flaky, with: {name: "{{ string(n) }}", failures: "{{ n == 1 ? 1 : 0 }}"}}
      - {id: c, tool: note, with: {what: "{{ string(steps.s.result) }}"}}
  - {id: e, set: "{{ steps.l.items.map(i, i.steps.s.result) }}"}
"""
    assert (await run(text, None, "r1")).status is WorkflowStatus.PARTIAL
    assert log.calls == [0, "0", 1, 2, "20"]
    done = await run.engine.resume("r1")
    assert (done.status, done.error) == (WorkflowStatus.COMPLETED, None)
    assert log.calls == [0, "0", 1, 2, "20", "10"]
    assert done.step_results["e"].result == [0, 10, 20]
    assert {path: one.status.value for path, one in done.step_results.items()} == dict.fromkeys(
        done.step_results, "completed"
    )
    log.calls.clear()
    again = await run.engine.resume("r1", "s")
    assert (again.status, log.calls) == (WorkflowStatus.COMPLETED, ["0", "10", "20"])
    assert again.step_results["e"].result == [0, 10, 20]


async def test_resume_within_parallel_and_switch_keeps_what_stands_beside(run: Runs, log: Log) -> None:
    text = """
name: w
steps:
  - id: p
    parallel:
      - {id: x, tool: note, with: {what: x}}
      - id: w
        switch:
          - if: "true"
            steps:
              - {id: y, tool: note, with: {what: y}}
              - {id: z, tool: flaky, with: {name: z, failures: 1}}
  - {id: e, set: "{{ steps.z.result }}"}
"""
    assert (await run(text, None, "r1")).status is WorkflowStatus.FAILED
    done = await run.engine.resume("r1")
    assert (done.status, sorted(log.calls)) == (WorkflowStatus.COMPLETED, ["x", "y"])
    assert run.results(done)["e"] == "z after 1"


async def test_what_is_too_long_to_keep_fails_its_step_and_not_the_run_for_ever(quick: Runs) -> None:
    text = """
name: w
inputs: {t: string}
steps:
  - {id: l, for_each: [1, 2, 3, 4], on_error: continue, steps: [{id: a, set: "{{ inputs.t }}"}]}
  - {id: b, set: 1}
"""
    result = await quick(text, {"t": "x" * 400_000})
    assert (result.status, "l" in str(result.error)) == (WorkflowStatus.PARTIAL, True)
    assert "1,048,576" in str(result.step_results["l"].error)
    outputs = (
        "{name: w, inputs: {t: string}, steps: [{id: a, set: 1}], outputs: {x: '{{ inputs.t }}', y: '{{ inputs.t }}'}}"
    )
    result = await quick(outputs, {"t": "x" * 600_000})
    assert (result.status, str(result.error).startswith("The outputs: ")) == (WorkflowStatus.FAILED, True)


async def test_resume_from_a_step_runs_it_and_what_needs_it_again(run: Runs, log: Log) -> None:
    text = """
name: w
steps:
  - {id: a, tool: note, with: {what: a}}
  - {id: b, needs: [a], tool: note, with: {what: b}}
  - {id: c, needs: [b], tool: note, with: {what: c}}
  - {id: d, needs: [a], tool: note, with: {what: d}}
"""
    first = await run(text, None, "r1")
    log.calls.clear()
    again = await run.engine.resume("r1", "b")
    assert (again.status, log.calls) == (WorkflowStatus.COMPLETED, ["b", "c"])
    assert again.step_results["a"] == first.step_results["a"]
    with pytest.raises(InvalidArgumentError, match="There is no step 'x': there are a, b, c, d"):
        await run.engine.resume("r1", "x")


async def test_a_run_keeps_the_text_it_began_with(quick: Runs, log: Log) -> None:
    text = "name: w\nsteps: [{id: a, approve: 'Go?'}, {id: b, tool: note, with: {what: old}}]"
    await quick(text, None, "r1")
    with pytest.raises(WorkflowMismatchError):
        await quick(text.replace("old", "new"), None, "r1")
    result = await quick.engine.respond("r1", "a", True)
    assert (result.status, log.calls) == (WorkflowStatus.COMPLETED, ["old"])
    assert result.sha256 == WorkflowDefinition.from_yaml(text).sha256


async def test_one_run_that_is_asked_for_twice_at_once_runs_each_step_once(run: Runs, log: Log) -> None:
    text = """
name: w
steps:
  - {id: a, tool: slow, with: {what: a}}
  - {id: b, tool: slow, with: {what: b}}
"""
    results: list[Any] = []

    async def go() -> None:
        results.append(await run(text, None, "r1"))

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(go)
    assert log.calls == ["a", "b"]
    assert results[0] == results[1] == results[2]
    assert results[0].status is WorkflowStatus.COMPLETED


async def test_runs_are_listed_by_workflow_newest_first(run: Runs) -> None:
    for name, session_id in (("w", "r1"), ("v", "r2"), ("w", "r3")):
        await run(f"name: {name}\nsteps: [{{id: a, set: 1}}]", None, session_id)
    run.manager.create_session("other", tags=["workflow"])
    assert [one.session_id for one in run.engine.list_runs()] == ["r3", "r2", "r1"]
    assert [one.session_id for one in run.engine.list_runs("w")] == ["r3", "r1"]
    assert [one.session_id for one in run.engine.list_runs("w", limit=1)] == ["r3"]


async def test_a_session_without_a_run_says_so(quick: Runs) -> None:
    quick.manager.create_session("plain")
    for ask in (quick.engine.resume("plain"), quick.engine.cancel("plain"), quick.engine.respond("plain", "a", True)):
        with pytest.raises(WorkflowNotFoundError, match="Session plain has no run"):
            await ask
    with pytest.raises(SessionNotFoundError):
        quick.engine.status("nowhere")


async def test_a_step_names_a_tool_that_is_there_and_takes_what_it_is_given(quick: Runs) -> None:
    for step, fact in (
        ("tool: noted, with: {what: 1}", "there is no tool 'noted'. Did you mean 'note'?"),
        ("tool: note, with: {wat: 1}", "note takes no 'wat'. Did you mean 'what'?"),
        ("tool: flaky, with: {name: x}", "flaky needs 'failures' in `with`"),
    ):
        with pytest.raises(WorkflowDefinitionError) as refused:
            await quick(f"name: w\nsteps:\n  - {{id: a, {step}}}", None, "r")
        assert fact in str(refused.value)
        assert "<yaml>:3: step 'a':" in str(refused.value)
    with pytest.raises(SessionNotFoundError):
        quick.manager.metadata("r")


async def test_an_agent_in_a_workflow_leaves_all_in_the_one_session(run: Runs, log: Log) -> None:
    answer = Answer("It is in auth.py.", model="claude-sonnet-4-5", usage=tokens(1000, 50), cost=0.01)
    engine = WorkflowEngine(run.manager, executors={"fake": Scripted([answer])})
    text = """
name: w
steps:
  - id: look
    agent: {use: explore, operation: find_implementation, executor: fake}
    with: {feature_or_function: login}
outputs: {where: "{{ steps.look.result }}"}
"""
    result = await engine.execute(WorkflowDefinition.from_yaml(text), None, "r1")
    assert result.outputs == {"where": "It is in auth.py."}
    said = run.manager.messages("r1", order="oldest").items
    assert [(one.role, one.model) for one in said] == [("user", None), ("assistant", "claude-sonnet-4-5")]
    head = run.manager.metadata("r1")
    assert (head.total_invocations, head.estimated_cost, head.token_usage["output"]) == (1, 0.01, 50)
    step, asked = sorted(run.manager.invocations("r1").items, key=lambda one: one.parent_id or "")
    assert (asked.caller, asked.tool_name, asked.parent_id) == ("agent:explore", "explore", step.invocation_id)
    assert said[0].invocation_id == asked.invocation_id


async def test_an_engine_without_a_manager_runs_in_memory_and_leaves_no_file(tmp_path: Any) -> None:
    with WorkflowEngine() as engine:
        result = await engine.execute({"name": "w", "steps": [{"id": "a", "set": 1}]})
        assert result.step_results["a"].result == 1
        assert engine.session_manager.view(result.session_id, Want(keys=("step.a",))).data["step.a"].value == 1
    assert list(tmp_path.iterdir()) == []


async def test_a_run_belongs_to_its_user(run: Runs) -> None:
    definition = WorkflowDefinition.from_yaml(TWO)
    await run.engine.execute(definition, {"n": 1}, "r1", as_user="ada")
    assert run.manager.metadata("r1").user_id == "ada"
    assert run.engine.status("r1", as_user="ada").status is WorkflowStatus.COMPLETED
    with pytest.raises(SessionNotFoundError):
        run.engine.status("r1", as_user="bob")
    assert run.engine.list_runs(as_user="bob") == []
    with pytest.raises(SessionNotFoundError):
        await run.engine.execute(definition, {"n": 1}, "r1", as_user="bob")
