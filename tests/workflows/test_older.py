"""Definitions of the engine before this one load unchanged, and what was wrong there is right here."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import pytest

from mcp_sessions.agents import AgentConfig, Scripted
from mcp_sessions.errors import ExecutorError, InvalidArgumentError, WorkflowDefinitionError, WorkflowMismatchError
from mcp_sessions.workflows import WorkflowDefinition, WorkflowEngine, WorkflowStatus
from tests.agents.fakes import RESULT, Fake
from tests.workflows.desk import Log, Runs, faults

pytestmark = pytest.mark.anyio
ONBOARDING = """
workflow:
  name: "onboarding"
  version: "1.0"
  description: "What somebody new reads first"
  inputs:
    codebase_path: {type: string, required: true, description: "The root"}
    depth: {type: integer, default: 2}
  outputs:
    guide: {type: object, description: "All of it"}
    structure: {type: string}
  steps:
    - id: analyze
      type: agent
      agent: explore
      operation: analyze_structure
      inputs: {codebase_path: "{{ inputs.codebase_path }}"}
      outputs: {structure: result}
      config: {cli_type: claude, model: haiku}
    - id: entry
      type: agent
      agent: explore
      operation: find_implementation
      depends_on: [analyze]
      inputs: {feature_or_function: "main entry point", codebase_path: "{{ codebase_path }}"}
      outputs: {entry_points: result}
      config: {cli_type: claude, model: haiku}
    - id: tests
      type: agent
      agent: explore
      operation: explore
      depends_on: [analyze]
      inputs: {question: "Where are the tests?", codebase_path: "{{ inputs.codebase_path }}"}
      config: {cli_type: claude}
    - id: count
      type: transform
      depends_on: [entry, tests]
      config: {operation: aggregate, function: count}
      inputs: {items: ["{{ steps.entry }}", "{{ steps.tests.result }}"]}
      outputs: {number: result}
    - id: each
      type: loop
      depends_on: [count]
      items: [1, 2]
      item_var: n
      steps:
        - id: twice
          type: transform
          config: {operation: map, function: transform, expression: "item * 2"}
          inputs: {items: ["{{ n }}"]}
  error_handling:
    on_failure: continue
    retry_policy: {max_attempts: 2, backoff: fixed, backoff_multiplier: 2}
"""


async def test_an_older_onboarding_workflow_runs_as_it_is(
    quick: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Fake(tmp_path / "bin", "claude", stdout=json.dumps(RESULT))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "code").mkdir()
    result = await quick(ONBOARDING, {"codebase_path": str(tmp_path / "code")}, "r1")
    assert (result.status, result.error) == (WorkflowStatus.COMPLETED, None)
    answer = "It is in auth.py:3."
    assert result.outputs == {
        "analyze.structure": answer,
        "entry.entry_points": answer,
        "count.number": {"function": "count", "item_count": 2, "result": 2},
        "structure": answer,
    }
    loop = result.step_results["each"].result
    assert loop["results"][1]["step_results"]["twice"]["result"]["mapped_items"] == [4]
    assert {name: loop[name] for name in ("iterations", "successful", "failed")} == {
        "iterations": 2,
        "successful": 2,
        "failed": 0,
    }
    assert "haiku" in fake.seen["argv"] or "--model" not in fake.seen["argv"]
    assert "--dangerously-skip-permissions" not in fake.seen["argv"]
    head = quick.manager.metadata("r1")
    assert (head.message_count, head.total_invocations) == (6, 3)
    assert quick.manager.get_value("r1", "workflow_input")["depth"] == 2


# W1 to W19: what the engine before this one did wrong; each line of them here


def older(*steps: str, more: str = "") -> str:
    listed = "\n".join(f"    - {step}" for step in steps)
    return f"workflow:\n  name: w\n{more}  steps:\n{listed}"


FAILS = "{id: bad, type: transform, on_error: continue, config: {operation: compare_results}, inputs: {}}"
ONE = "{id: one, type: transform, config: {operation: aggregate, function: count}, inputs: {items: [1]}}"


async def test_w1_a_failed_step_beside_a_loop_is_not_completed(quick: Runs) -> None:
    result = await quick(older(FAILS, f"{{id: l, type: loop, items: [1], steps: [{ONE}]}}"))
    assert result.status is WorkflowStatus.PARTIAL


async def test_w2_a_loop_with_a_failed_item_keeps_the_results_of_the_others(quick: Runs) -> None:
    step = "{id: c, type: transform, config: {operation: filter, condition: '{{ n }}', value: 1}, inputs: {items: [1]}}"
    loop = f"{{id: l, type: loop, items: [equals, wrong, equals], item_var: n, on_error: continue, steps: [{step}]}}"
    result = await quick(older(loop))
    told = result.step_results["l"].result
    assert (result.status, told["successful"], told["failed"]) == (WorkflowStatus.PARTIAL, 2, 1)


async def test_w3_a_loop_over_no_list_fails(quick: Runs) -> None:
    result = await quick(
        older(
            f"{{id: l, type: loop, items: '{{{{ inputs.x }}}}', steps: [{ONE}]}}",
            more="  inputs: {x: {type: string}}\n",
        ),
        {"x": "abc"},
    )
    assert (result.status, "takes a list" in str(result.error)) == (WorkflowStatus.FAILED, True)


async def test_w4_a_loop_leaves_its_definition_as_it_is(quick: Runs) -> None:
    definition = WorkflowDefinition.from_yaml(older(f"{{id: l, type: loop, items: [1, 2], steps: [{ONE}]}}"))
    before = definition.to_dict()
    paths = [list((await quick.engine.execute(definition)).step_results) for _ in range(2)]
    assert definition.to_dict() == before
    assert paths == [["l", "l[0].one", "l[1].one"]] * 2


async def test_w5_resume_runs_nothing_twice_and_leaves_no_stale_error(quick: Runs, log: Log) -> None:
    text = "name: w\nsteps: [{id: a, tool: note, with: {what: a}}, {id: b, tool: flaky, with: {name: x, failures: 1}}]"
    assert (await quick(text, None, "r1")).error is not None
    assert (await quick.engine.resume("r1")).error is None
    assert log.calls == ["a"]


async def test_w6_runs_of_a_name_are_listed_without_those_of_others(quick: Runs) -> None:
    await quick("name: a\nsteps: [{id: s, set: 1}]", None, "r1")
    await quick("name: b\nsteps: [{id: s, set: 1}]", None, "r2")
    assert [one.session_id for one in quick.engine.list_runs("a")] == ["r1"]


def test_w7_a_cycle_is_refused() -> None:
    steps = "{id: a, depends_on: [b], set: 1}", "{id: b, depends_on: [a], set: 1}"
    assert "wait for each other" in faults(older(*steps))[0]


RETRY = "{max_attempts: 2, backoff: exponential, backoff_multiplier: 3, delay: 0.2}"


async def test_w8_scripts_are_refused_and_defaults_types_outputs_timeouts_and_pauses_count(quick: Runs) -> None:
    assert "a script is never run" in faults(older("{id: a, type: transform, script: 'x = 1'}"))[0]
    text = older(
        "{id: a, set: '{{ inputs.n }}', outputs: {n: result}}",
        "{id: b, tool: slow, inputs: {seconds: 9}, timeout: 0.05, on_error: continue}",
        "{id: c, tool: flaky, inputs: {name: c, failures: 1}, retry: " + RETRY + "}",
        more="  inputs: {n: {type: integer, default: 7}}\n"
        "  outputs: {n: {type: integer, value: '{{ steps.a.result }}'}}\n",
    )
    begin = anyio.current_time()
    result = await quick(text)
    assert anyio.current_time() - begin >= 0.25
    assert (result.outputs["n"], quick.statuses(result)["b"], quick.results(result)["c"]) == (7, "failed", "c after 1")
    with pytest.raises(InvalidArgumentError, match="is a string, not integer"):
        await quick(text, {"n": "7"})


async def test_w9_conditional_and_parallel_run(quick: Runs, log: Log) -> None:
    text = older(
        "{id: c, type: conditional, condition: '{{ inputs.go }}', then: [{id: t, tool: note, inputs: {what: yes}}], "
        "else: [{id: e, tool: note, inputs: {what: no}}]}",
        "{id: p, type: parallel, max_concurrency: 2, steps: [{id: x, tool: slow}, {id: y, tool: slow}]}",
        more="  inputs: {go: {type: boolean}}\n",
    )
    assert (await quick(text, {"go": True})).status is WorkflowStatus.COMPLETED
    assert (await quick(text, {"go": False})).status is WorkflowStatus.COMPLETED
    assert [one for one in log.calls if one] == ["yes", "no"]
    assert log.most_at_once == 2


async def test_w10_data_is_not_read_as_a_template(quick: Runs) -> None:
    text = older("{id: a, set: '{{ inputs.a }}'}", more="  inputs: {a: {type: string}, b: {type: string}}\n")
    assert quick.results(await quick(text, {"a": "{{ inputs.b }}", "b": "leaked"})) == {"a": "{{ inputs.b }}"}


async def test_w11_templates_reach_into_lists_and_configurations_and_inputs_take_no_names(quick: Runs) -> None:
    text = older(
        "{id: a, set: [{x: ['{{ inputs.m[0][1] }}']}, '{{ m[0] }}', '{{ context.execution_id }}']}",
        "{id: b, type: transform, config: {operation: aggregate, function: '{{ inputs.f }}'}, inputs: {items: [1, 2]}}",
        more="  inputs: {m: {type: list}, f: {type: string}}\n",
    )
    result = await quick(text, {"m": [[1, 2]], "f": "max"})
    assert result.step_results["a"].result == [{"x": [2]}, [1, 2], result.execution_id]
    assert result.step_results["b"].result["result"] == 2
    assert "no input may be called 'steps'" in faults(older(ONE, more="  inputs: {steps: {type: string}}\n"))[0]


async def test_w12_nothing_of_a_definition_is_run_as_python(quick: Runs, tmp_path: Path) -> None:
    evil = '__import__(\\"os\\").system(\\"touch pwned\\")'
    for config in (
        f'{{operation: filter, condition: custom, expression: "{evil}"}}',
        f'{{operation: map, function: compute, expression: "{evil}"}}',
        f'{{operation: map, function: transform, expression: "{evil}"}}',
    ):
        try:
            await quick(older(f"{{id: a, type: transform, config: {config}, inputs: {{items: [1]}}}}"))
        except WorkflowDefinitionError:
            continue
    assert not (tmp_path / "pwned").exists()


def test_w13_a_path_in_a_configuration_may_be_text(tmp_path: Path) -> None:
    assert AgentConfig(session_storage_path=str(tmp_path)).session_storage_path == tmp_path


async def test_w14_an_agent_that_fails_fails_its_step(quick: Runs) -> None:
    engine = WorkflowEngine(quick.manager, executors={"claude": Scripted([ExecutorError("not logged in")])})
    text = older("{id: a, type: agent, agent: explore, operation: explore, inputs: {question: q}}")
    result = await engine.execute(WorkflowDefinition.from_yaml(text))
    assert (result.status, result.error) == (WorkflowStatus.FAILED, "Step 'a' failed: not logged in")


async def test_w15_an_agents_conversation_is_in_the_session_of_the_run(quick: Runs) -> None:
    engine = WorkflowEngine(quick.manager, executors={"claude": Scripted(["answer"])})
    text = older("{id: a, type: agent, agent: explore, operation: explore, inputs: {question: q}}")
    result = await engine.execute(WorkflowDefinition.from_yaml(text))
    session = quick.manager.get_session(result.session_id)
    assert session is not None
    assert (len(session.conversation), len(session.invocation_ids) > 0, "workflow_input" in session.data) == (
        2,
        True,
        True,
    )


def is_empty(folder: Path) -> bool:
    return not any(folder.iterdir())


async def test_w16_an_engine_writes_nowhere_of_its_own(tmp_path: Path) -> None:
    with WorkflowEngine() as engine:
        await engine.execute(WorkflowDefinition.from_yaml(older(f"{{id: l, type: loop, items: [1], steps: [{ONE}]}}")))
    assert is_empty(tmp_path)


async def test_w17_an_input_that_no_store_keeps_is_refused_before_anything_runs(quick: Runs) -> None:
    text = older(ONE, more="  inputs: {x: {type: any}}\n")
    for value in (object(), float("nan"), {1: 2}, b"x"):
        with pytest.raises(InvalidArgumentError):
            await quick(text, {"x": value}, "r1")
    assert not quick.manager.storage.session_exists("r1")


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        (older("{id: l, type: loop, items: [1], steps: [{id: x, type: wrong}]}"), "type 'wrong' is of no kind"),
        (
            older("{id: l, type: loop, items: [1], steps: [{id: x, set: 1, depends_on: [y]}]}"),
            "needs 'y', which is no step",
        ),
        ("workflow: {name: w, steps: 3}", "should be a valid list"),
        ("workflow: {name: w, steps: [3]}", "should be a valid dictionary"),
        ("workflow: 3", "unknown key 'workflow'"),
        ("- 1", "it is no object"),
    ],
)
def test_w18_what_is_within_is_checked_and_other_shapes_are_refused(text: str, fact: str) -> None:
    found = faults(text)
    assert any(fact in fault for fault in found), found


async def test_w19_retry_is_retry_and_what_needs_a_failed_step_is_skipped(quick: Runs, log: Log) -> None:
    text = older(
        "{id: a, tool: flaky, inputs: {name: a, failures: 1}, on_error: retry, retry: {max_attempts: 2, delay: 0.01}}",
        "{id: b, type: transform, depends_on: [a], config: {operation: compare_results}, inputs: {}}",
        "{id: c, tool: note, depends_on: [b], inputs: {what: c}}",
    )
    result = await quick(text)
    assert quick.statuses(result) == {"a": "completed", "b": "failed", "c": "skipped"}
    assert (result.step_results["c"].message, log.calls) == ("Step 'b' failed.", [])


async def test_another_workflow_in_the_session_of_a_run_is_told(quick: Runs) -> None:
    await quick(older(ONE), None, "r1")
    with pytest.raises(WorkflowMismatchError):
        await quick(older(ONE).replace("name: w", "name: v"), None, "r1")
