"""Definitions: what loads, and what is refused before anything runs, with its line and what was meant."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from mcp_sessions.errors import WorkflowDefinitionError
from mcp_sessions.workflows import WorkflowDefinition
from mcp_sessions.workflows.model import Retry, json_schema, seconds
from tests.processes import ROOT
from tests.workflows.desk import faults

STEPS = "steps:\n  - {id: a, set: 1}\n"


WRONG = [
    ("", "1: it is empty. Begin with `name:` and `steps:`."),
    ("- a", "1: it is no object with `name:` and `steps:`."),
    ("name: w", "1: 'steps' is missing."),
    ("name: w\nsteps: []", "2: 'steps' list should have at least 1 item after validation, not 0."),
    ("name: [\n", "2: Invalid YAML: expected the node content, but found '<stream end>'."),
    ("name: w\nname: v\n" + STEPS, "2: the key 'name' stands twice, in line 1 too."),
    ("nam: w\n" + STEPS, "1: unknown key 'nam'. Did you mean 'name'?"),
    (STEPS + "    retires: 3", "Invalid YAML"),
    ("steps:\n  - id: a\n    set: 1\n    retires: 3", "4: step 'a': unknown key 'retires'. Did you mean 'retry'?"),
    ("steps:\n  - {id: a, set: 1, retry: {max_atempts: 2}}", "Did you mean 'max_attempts'?"),
    ("steps:\n  - {id: a}", "2: step 'a': has no kind: a step has exactly one of tool, agent"),
    ("steps:\n  - {id: a, set: 1, tool: x}", "2: step 'a': has tool and set: a step has exactly one"),
    ("steps:\n  - {set: 1}", "2: 'id' is missing."),
    ("steps:\n  - {id: a-b, set: 1}", "2: step 'a-b': 'id' string should match pattern"),
    ("steps:\n  - {id: a, set: 1}\n  - {id: a, set: 2}", "3: the id 'a' stands twice."),
    ("steps:\n  - {id: a, set: 1}\n  - {id: p, parallel: [{id: a, set: 2}]}", "3: the id 'a' stands twice."),
    (
        "steps:\n  - {id: a, needs: [bb], set: 1}\n  - {id: b, set: 1}",
        "2: step 'a' needs 'bb', which is no step. Did you mean 'b'?",
    ),
    (
        "steps:\n  - {id: a, needs: [b], set: 1}\n  - {id: b, needs: [a], set: 1}",
        "the steps wait for each other: a -> b -> a.",
    ),
    ("steps:\n  - {id: a, set: '{{ steps.b.result }}'}\n  - {id: b, set: 1}", "the steps wait for each other"),
    (
        "steps:\n  - {id: a, needs: [], set: '{{ steps.a.result }}'}",
        "it reads 'a', which is not done when it begins",
    ),
    ("steps:\n  - {id: a, set: '{{ steps.x }}'}", "2: step 'a': there is no step 'x'."),
    ("steps:\n  - {id: a, set: '{{ inputs.x }}'}", "there is no input 'x'."),
    (
        "inputs: {repo: string}\nsteps:\n  - {id: a, set: '{{ inputs.rep }}'}",
        "3: step 'a': there is no input 'rep'. Did you mean 'repo'?",
    ),
    ("steps:\n  - {id: a, set: '{{ foo(1) }}'}", "calls 'foo', which is no function."),
    ("steps:\n  - {id: a, set: '{{ now }}'}", "reads 'now', which is not known."),
    ("steps:\n  - {id: a, if: 'x y', set: 1}", "2: step 'a': if: {{ x y }}: 3: Syntax error"),
    ("steps:\n  - {id: a, set: '{{ secrets.X }}'}", "secrets are for `with` of a tool of another server"),
    ("steps:\n  - {id: a, tool: session_set, with: {key: k, value: '{{ secrets.X }}'}}", "secrets are for `with`"),
    (
        "steps:\n  - {id: l, for_each: [1], steps: [{id: i, set: 1}]}\n  - {id: a, set: '{{ steps.i.result }}'}",
        "read steps.l.items",
    ),
    (
        "steps:\n  - {id: l, for_each: [1], as: steps, steps: [{id: i, set: 1}]}",
        "'steps' is taken; give `as` another name",
    ),
    ("inputs: {inputs: string}\n" + STEPS, "1: no input may be called 'inputs'"),
    ("inputs: {n: {type: integer, default: x}}\n" + STEPS, "1: the default of input 'n' is a string, not integer."),
    ("inputs: {n: int}\n" + STEPS, "1: 'type' should be 'string', 'integer'"),
    ("steps:\n  - {id: a, operation: agregate}", "unknown operation 'agregate'. Did you mean 'aggregate'?"),
    (
        "steps:\n  - {id: a, operation: aggregate, config: {function: sun}}",
        "2: step 'a': aggregate: 'function' cannot be 'sun'. Did you mean 'sum'?",
    ),
    ("steps:\n  - {id: a, tool: git/log}", "there is no server 'git'. `servers:` names them."),
    ("servers: {git: {}}\nsteps:\n  - {id: a, tool: git/log}", "1: needs either a command or a url."),
    ("steps:\n  - {id: a, sleep: 3 bananas}", "2: step 'a': sleep is no duration"),
    ("steps:\n  - {id: a, set: 1, timeout: soon}", "'timeout' is no duration: seconds, or 30s, 5m"),
    (
        "steps:\n  - {id: a, set: 1, on_error: ignore}",
        "on_error is stop, continue or another step of its list, not 'ignore'.",
    ),
    ("steps:\n  - {id: a, set: 1, on_error: a}", "not 'a'."),
    ("steps:\n  - {id: a, agent: {use: explor}, with: {}}", "'use' should be 'ask', 'explore'"),
    (
        "schedule: {cron: '* * * * *'}\n" + STEPS,
        "1: 'schedule' is not done here: nothing of this runs when nobody calls it.",
    ),
    ("steps:\n  - {id: a, set: {{ inputs.x }}}", "2: a key is no text; an expression stands in quotes"),
    (
        "steps:\n  - {id: a, set: !!python/object:os.system x}",
        "2: the tag tag:yaml.org,2002:python/object:os.system means nothing here.",
    ),
    ("steps:\n  - {id: a, config: {}, set: 1}", "has 'config', which is for operation alone"),
    ("steps:\n  - {id: a, type: script, script: x}", "type 'script' is of no kind that there is"),
    ("steps:\n  - {id: a, type: transform, script: 'x = 1'}", "a script is never run; `set` has expressions"),
]


@pytest.mark.parametrize(("text", "told"), WRONG, ids=range(len(WRONG)))
def test_what_cannot_run_is_refused_with_its_line(text: str, told: str) -> None:
    found = faults(text)
    assert any(told in fault for fault in found), found


def test_all_that_is_wrong_is_told_at_once_in_the_order_of_the_lines() -> None:
    found = faults(
        "steps:\n  - {id: a, set: '{{ x }}'}\n  - {id: b, needs: [c], set: 1}\n  - {id: b, set: '{{ 1 + }}'}"
    )
    assert [int(fault.partition(":")[0]) for fault in found] == [2, 3, 4, 4]


def test_aliases_unfold_but_not_without_end() -> None:
    shared = "defs: &d {x: 1}\n"
    assert "unknown key 'defs'" in faults(shared + STEPS)[0]
    text = "steps:\n  - {id: a, set: &v [1, 2]}\n  - {id: b, set: *v}"
    assert WorkflowDefinition.from_yaml(text).spec.steps[1].set == [1, 2]
    bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    assert "with its aliases" in faults(bomb)[0]
    assert "nested" in faults("a: " + "[" * 5000)[0]
    assert "which no workflow needs" in faults("#" * (1 << 20) + "#")[0]


def test_scalars_are_what_they_look_like() -> None:
    text = "steps:\n  - {id: a, set: [yes, on, 012, 0x1f, 1_000, 2026-01-01, ~, True, 1.5, 1e3, '7', -3, .inf]}"
    assert WorkflowDefinition.from_yaml(text).spec.steps[0].set == [
        *("yes", "on", "012", "0x1f", "1_000", "2026-01-01", None, True, 1.5, 1000.0, "7", -3, ".inf"),
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("30s", 30),
        ("5m", 300),
        ("1h30m", 5400),
        ("7d", 604_800),
        ("PT30S", 30),
        ("P1DT2H", 93_600),
        ("250ms", 0.25),
        (2, 2),
        ("1.5m", 90),
        ("12", 12),
    ],
)
def test_durations(text: Any, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "s", "-1", -2, "1x", None, [], True, "400d", "1s1h", "1e9"])
def test_what_is_no_duration(text: Any) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        seconds(text)


def test_a_definition_comes_from_a_file_a_text_and_an_object(tmp_path: Path) -> None:
    text = "name: w\nsteps: [{id: a, set: 1}]"
    file = tmp_path / "w.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert WorkflowDefinition.from_file(file).to_dict() == WorkflowDefinition.from_yaml(text).to_dict()
    made = WorkflowDefinition.from_dict({"name": "w", "steps": [{"id": "a", "set": 1}]})
    assert made.to_dict() == {"name": "w", "steps": [{"id": "a", "set": 1}]}
    assert made.sha256 == WorkflowDefinition.from_dict({"steps": [{"set": 1, "id": "a"}], "name": "w"}).sha256
    with pytest.raises(FileNotFoundError, match="Workflow file not found"):
        WorkflowDefinition.from_file(tmp_path / "none.yaml")
    file.write_bytes(b"name: \xff")
    with pytest.raises(WorkflowDefinitionError, match="it is not UTF-8 text"):
        WorkflowDefinition.from_file(file)
    with pytest.raises(WorkflowDefinitionError, match="NaN"):
        WorkflowDefinition.from_dict({"name": "w", "steps": [{"id": "a", "set": float("nan")}]})


def test_steps_are_found_wherever_they_stand() -> None:
    definition = WorkflowDefinition.from_yaml(
        "steps: [{id: l, for_each: [1], steps: [{id: p, parallel: [{id: x, set: 1}]}]}]"
    )
    found = definition.get_step("x")
    assert found is not None
    assert (found.kind, definition.get_step("y")) == ("set", None)
    assert [step.id for step in definition.spec.walk()] == ["l", "p", "x"]


FILES = {
    **{
        f"{name}-{number}": text
        for name in ("workflows", "operations", "migration")
        for number, text in enumerate(
            re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8"), re.DOTALL)
        )
        if "steps:" in text
    },
    **{file.name: file.read_text(encoding="utf-8") for file in (ROOT / "examples").glob("*.yaml")},
}


@pytest.fixture(scope="module")
def schema() -> Draft202012Validator:
    return Draft202012Validator(json_schema())


@pytest.mark.parametrize("name", FILES)
def test_the_schema_of_editors_takes_what_runs(schema: Draft202012Validator, name: str) -> None:
    assert [error.message for error in schema.iter_errors(yaml.safe_load(FILES[name]))] == []


SHORT = [
    "{id: a, set: 1, retry: 3}",
    "{id: a, set: 1, retry: never}",
    "{id: a, agent: explore, with: {question: why}}",
    "{id: a, approve: Go on}",
    "{id: a, approve: {message: Go on, timeout: 1h30m}}",
    "{id: a, switch: [{if: true, steps: [{id: b, set: 1}]}, {else: [{id: c, set: 2}]}]}",
    "{id: a, sleep: 1.5m}",
    "{id: a, sleep: '{{ 1 + 1 }}'}",
    "{id: a, sleep: 3}",
    "{id: a, set: 1, timeout: '5'}",
    "{id: a, set: 1, timeout: PT1H30M}",
    "{id: a, set: 1, timeout: 250 ms}",
    "{id: a, set: 1, depends_on: [], when: 'true'}",
    "{id: a, tool: session_get, inputs: {session_id: x}}",
]
REFUSED = [
    "{id: a, set: 1, timeout: nonsense}",
    "{id: a, set: 1, timeout: 0}",
    "{id: a, set: 1, timeout: -1}",
    "{id: a, sleep: nonsense}",
    "{id: a, set: 1, retry: always}",
    "{id: a, set: 1, retry: 0}",
    "{id: größe, set: 1}",
    "{id: a}",
    "{id: a, set: 1, fail: x}",
    "{id: a, set: 1, retires: 3}",
    "{id: a, agent: ask-me}",
    "{id: a, agent: {output: {t: strin}}, with: {prompt: x}}",
    "{id: a, switch: []}",
    "{id: a, for_each: [], steps: [{id: b}]}",
]


@pytest.mark.parametrize("step", SHORT)
def test_the_schema_of_editors_takes_short_forms(schema: Draft202012Validator, step: str) -> None:
    text = f"name: w\nversion: 1.5\ninputs: {{n: integer}}\noutputs: {{o: '{{{{ inputs.n }}}}'}}\nsteps: [{step}]"
    WorkflowDefinition.from_yaml(text)
    assert [error.message for error in schema.iter_errors(yaml.safe_load(text))] == []


@pytest.mark.parametrize("step", REFUSED)
def test_the_schema_of_editors_refuses_what_is_refused(schema: Draft202012Validator, step: str) -> None:
    text = f"name: w\nsteps: [{step}]"
    with pytest.raises(WorkflowDefinitionError):
        WorkflowDefinition.from_yaml(text)
    assert not schema.is_valid(yaml.safe_load(text))


@pytest.mark.parametrize(
    ("step", "fact"),
    [
        ("{id: a, set: 1, timeout: 0}", "step 'a': 'timeout' is no time: it is more than 0 s."),
        ("{id: a, tool: 'session_{{ 1 }}'}", "step 'a': tool takes no expression: what runs is never computed."),
        ("{id: a, workflow: '{{ 1 }}'}", "step 'a': workflow takes no expression"),
        ("{id: a, agent: {model: '{{ 1 }}'}, with: {prompt: x}}", "step 'a': model takes no expression"),
        ("{id: a, agent: {instructions: '{{ inputs.who }}'}, with: {prompt: x}}", "there is no input 'who'"),
        ("{id: a, agent: {instructions: '{{ secrets.who }}'}, with: {prompt: x}}", "elsewhere they would be kept"),
        ("{id: a, agent: {instructions: x}}", "an agent is asked something: `with` needs 'prompt'"),
        ("{id: a, agent: {use: explore, operation: find_usage}}", "`with` needs 'symbol'"),
        (
            "{id: a, agent: {use: explore, output: {n: integer}}, with: {question: x}}",
            "has output, which an agent with",
        ),
        ("{id: a, set: 1, with: {x: 1}}", "step 'a': has `with`, which set does not read"),
        ("{id: a, approve: Go, retry: 2}", "step 'a': has a retry: approve is not tried, it waits"),
        ("{id: a, for_each: [], as: one, steps: [{id: b, set: 1}]}", "'one_index' is taken"),
    ],
)
def test_what_is_told_of_a_step(step: str, fact: str) -> None:
    (fault,) = faults(f"name: w\ninputs: {{one_index: integer}}\nsteps:\n  - {step}")
    assert fact in fault


def test_what_is_told_of_an_output() -> None:
    told = faults("""
name: w
outputs: {o: {type: bug, description: "{{ 1 }}"}, p: {type: integer}, q: {value: 1, type: strin}}
steps: [{id: a, set: 1}]
""")
    assert told == [
        "3: output 'o' has no value: `value` gives it one, or an output of that name of a step.",
        "3: output 'o': there is no type 'bug'. There are string, integer, number, boolean, list, array, object, any.",
        "3: output 'p' has no value: `value` gives it one, or an output of that name of a step.",
        "3: output 'q': there is no type 'strin'. Did you mean 'string'?",
    ]


def test_a_name_says_something() -> None:
    assert faults("name: '  '\n" + STEPS) != []


def test_a_lone_expression_keeps_its_type_in_a_block_too() -> None:
    text = """
steps:
  - id: a
    set: |
      {{ 5 }}
  - id: b
    if: |
      {{ true }}
    set: |
      n: {{ 5 }}
"""
    a, b = WorkflowDefinition.from_yaml(text).spec.steps
    assert a.template.resolve(lambda one: one.evaluate({}))["set"] == 5
    assert b.template.resolve(lambda one: one.evaluate({}))["set"] == "n: 5\n"
    assert b.when is not None
    assert b.when.resolve(lambda one: one.evaluate({})) is True


def test_a_pause_grows_up_to_its_bound_and_chance_makes_it_shorter() -> None:
    rule = Retry(delay=1, multiplier=3, max_delay=5)
    assert [rule.delay_s(failures, 0.7) for failures in (1, 2, 3)] == [1, 3, 5]
    assert [Retry(delay=2, backoff="fixed").delay_s(failures, 0) for failures in (1, 9)] == [2, 2]
    jittered = Retry(delay=10, backoff="fixed", jitter=0.5)
    assert [jittered.delay_s(1, chance) for chance in (0, 1)] == [10, 5]


@pytest.mark.parametrize(
    ("written", "attempts", "never"), [("3", 3, False), ("never", 1, True), ("{max_attempts: 2}", 2, False)]
)
def test_short_forms_of_retry(written: str, attempts: int, never: bool) -> None:
    step = WorkflowDefinition.from_yaml(f"steps: [{{id: a, set: 1, retry: {written}}}]").spec.steps[0]
    assert step.retry is not None
    assert (step.retry.max_attempts, step.retry.never) == (attempts, never)
