"""Expressions: what they give, what they refuse, and that none takes long."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mcp_sessions import SessionManager
from mcp_sessions.errors import ExpressionError
from mcp_sessions.workflows import StepResult, StepStatus, WorkflowContext, bounded
from mcp_sessions.workflows.bounded import Evaluator
from mcp_sessions.workflows.expressions import Expression, Template
from tests.processes import full_counts


@pytest.fixture(scope="module")
def evaluator() -> Iterator[Evaluator]:
    with Evaluator() as evaluator:
        yield evaluator


def given(source: str, **scope: Any) -> Any:
    return Expression(source).evaluate(scope)


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("a.b[1].c", 3),
        ("a.items", [1]),
        ("size(a.b) > 1 && !a.no", True),
        ("'x' in ['x'] ? 1 : 2", 1),
        ("has(a.zz) ? a.zz : 'd'", "d"),
        ("a.b.map(x, x.c).filter(c, c > 2)", [3]),
        ("a.get('b[1].c', 0) + a.get('b[9].c', 1)", 4),
        ("['a', 2, {'k': 1}].join(', ')", 'a, 2, {"k":1}'),
        ("timestamp('2026-01-01T00:00:00Z')", "2026-01-01T00:00:00Z"),
        ("duration('90s')", 90.0),
        ("{'k': [null, 1.5]}", {"k": [None, 1.5]}),
        ("'it' + \"'s\"", "it's"),
    ],
)
def test_an_expression_gives_json(source: str, value: Any) -> None:
    assert given(source, a={"b": [{"c": 1}, {"c": 3}], "items": [1], "no": False}) == value


@pytest.mark.parametrize(
    ("source", "fact"),
    [
        ("a.zz.b", "there is no 'zz' there"),
        ("a.b[7]", "there is no '7' there"),
        ("1 / 0", "division by zero"),
        ("a +", "Syntax error"),
        ("", "it is empty"),
        ("a.__class__", "there is no '__class__' there"),
        ("b'x'", "has a bytes"),
        ("1 + 'a'", "No such overload"),
        ("x" * 2001, "it has 2,001 characters"),
        ("99999999999999999999", "invalid int literal"),
    ],
)
def test_what_gives_nothing_is_told_with_the_reason(source: str, fact: str) -> None:
    with pytest.raises(ExpressionError) as refused:
        given(source, a={"b": []})
    assert fact in str(refused.value)
    assert "{{ " in str(refused.value)


SCOPE = {
    "a": {"b": [{"c": 1}, {"c": None}], "d e": "x", "0": "zero", "in": 1.0},
    "l": [[1, 2], [], "text"],
    "n": None,
    "t": "text",
}


@pytest.mark.parametrize(
    "source",
    [
        *("a", "n", "l", "a.b", "a.b[0].c", "a.b[1].c", "a['d e']", 'a["0"]', "l[0][1]", "l[2]", "a['b'][0]['c']"),
        *("a.x", "a.b[2]", "a.b.c", "n.a", "t.a", "t[0]", "l[0].a", "a[0]", "l['a']", "a.b[1].c.d"),
    ],
)
def test_what_only_says_where_something_stands_is_found_as_cel_finds_it(source: str) -> None:
    by_cel = Expression(f"[{source}][0]")
    assert (Expression(source).path is None, by_cel.path) == (False, None)
    try:
        value = by_cel.evaluate(SCOPE)
    except ExpressionError:
        with pytest.raises(ExpressionError):
            Expression(source).evaluate(SCOPE)
    else:
        assert Expression(source).evaluate(SCOPE) == value


@pytest.mark.parametrize("source", ["true", "null", "a.b.size()", "-1", "a[-1]", "a[b]", "a . b", "has(a.b)"])
def test_other_expressions_are_left_to_cel(source: str) -> None:
    assert Expression(source).path is None


MOST_S = 2.0 if full_counts() else 0.5
LIST = "[1,2,3,4,5,6,7,8,9,10]"


@pytest.mark.parametrize(
    "source",
    [
        f"{LIST}.map(a, {LIST}.map(b, {LIST}.map(c, {LIST}.map(d, {LIST}.map(e, {LIST}.map(f, {LIST}))))))",
        "big.map(x, big.map(y, x + y))",
        "big.filter(x, big.exists(y, y == -1))",
        "long.map(x, long)",
        "[text + text + text + text + text + text].map(t, t + t + t + t + t + t + t + t).map(t, t + t + t + t + t)",
        "text + " * 40 + "text",
    ],
)
def test_a_bomb_ends_with_an_error_and_what_comes_next_is_answered(
    evaluator: Evaluator, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded, "MOST_S", MOST_S)
    expression = Expression(source)
    assert expression.heavy
    scope = {"big": [*range(20_000)], "long": [*range(3_000)], "text": "x" * 1_000_000}
    begin = time.monotonic()
    with pytest.raises(ExpressionError) as refused:
        evaluator.evaluate(expression, {name: scope[name] for name in expression.free})
    assert any(fact in str(refused.value) for fact in ("it takes over", "at most"))
    assert time.monotonic() - begin < 60 + MOST_S  # it would take hours: a guard, not a measure
    assert evaluator.evaluate(Expression("[1].map(x, x + 1)"), {}) == [2]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{{ {'a': {'b': 1}}.a.b }}", 1),
        ("{{ {'a': {'b': 1}}}}", {"a": {"b": 1}}),
        ("{{ '}}' + \"}}{{\" }}", "}}}}{{"),
        ("{{ {'a': '}'}.a }} and {{ {'b': {}} }}", '} and {"b":{}}'),
        ("it's {{ 1 }}, it's {{ 2 }}", "it's 1, it's 2"),
        ("{{ 1 }}}", "1}"),
        ("}} {{ 1 }} {{", "}} 1 {{"),
    ],
)
def test_an_expression_ends_where_its_own_strings_and_objects_have_ended(text: str, value: Any) -> None:
    assert Template.of(text).resolve(lambda one: one.evaluate({})) == value


@pytest.mark.parametrize("text", ["{{ it's }}", "{{ {'a': 1 }}", "{{ } }}"])
def test_an_expression_that_does_not_end_well_is_told(text: str) -> None:
    with pytest.raises(ExpressionError, match="Syntax error"):
        Template.of(text)


def test_a_variable_of_a_macro_may_have_the_name_of_another_one() -> None:
    assert given("[x.filter(x, x > 1), x]", x=[1, 2]) == [[2], [1, 2]]


def test_lists_that_an_expression_gives_are_bounded() -> None:
    with pytest.raises(ExpressionError, match="has 100,001 members"):
        given("a", a=[0] * 100_001)


def test_a_bounded_expression_gives_and_fails_as_another_does(evaluator: Evaluator) -> None:
    assert evaluator.evaluate(Expression("a.map(x, x.b)"), {"a": [{"b": "{{ 1 }}"}]}) == ["{{ 1 }}"]
    with pytest.raises(ExpressionError, match=r"\{\{ a.map\(x, x.c\) \}\}: there is no 'c' there"):
        evaluator.evaluate(Expression("a.map(x, x.c)"), {"a": [{"b": 1}]})


def test_only_what_the_author_wrote_is_read() -> None:
    template = Template.of({"a": "{{ x }}", "b": ["${{ x }}-{{ y }}"], "c": "no {{ end", "d": 3})
    scope = {"x": "{{ y }}", "y": 1}
    assert template.resolve(lambda one: one.evaluate(scope)) == {
        "a": "{{ y }}",
        "b": ["{{ y }}-1"],
        "c": "no {{ end",
        "d": 3,
    }


def test_a_text_that_expressions_make_is_bounded() -> None:
    with pytest.raises(ExpressionError, match="it makes 3,000,000 characters"):
        Template.of("{{ x }}{{ x }}{{ x }}").resolve(lambda _: "x" * 1_000_000)


def test_a_context_gives_what_stands_at_a_path() -> None:
    context = WorkflowContext({"name": "n", "m": [5, 6]}, "w", "e")
    context.set_step_result("split", {"tasks": [{"items": [10]}, {"items": [30, 40]}]})
    context.set_step_result("bad", StepResult(step_id="bad", status=StepStatus.RUNNING))
    context.set_output("final", "f")
    assert context.get("steps.split.result.tasks[1].items[0]") == 30
    assert context.get("steps.split.status") == "completed"
    assert context.get("outputs.final") == "f"
    for path in ("steps.split.result.tasks[5].items", "steps.split.result.tasks[abc]", "inputs.zz", "", "..", "m[-1]"):
        assert context.get(path, "d, e") == "d, e"
    assert (context.get_step_status("bad"), context.get_step_status("none")) == (StepStatus.RUNNING, None)
    assert context.get_step_result("none") is None


def test_a_context_resolves_templates() -> None:
    context = WorkflowContext({"name": "n", "count": 5, "steps": "mine", "m": [[1, 2], [3]]}, "w", "e1")
    context.set_step_result("a", {"text": "{{ inputs.name }}", "list": [{"x": 1}]})
    resolved = {
        "{{ inputs.count }}": 5,
        "{{ count }} of {{ name }}": "5 of n",
        "{{ steps.a.result.text }}": "{{ inputs.name }}",  # data is no template
        "{{ m[0][1] }}": 2,
        "{{ inputs.steps }}": "mine",  # an input takes nothing away
        "{{ context.execution_id }}": "e1",
        "{{ context.get('inputs.none', 'a, b') }}": "a, b",
        "{{ steps.a.result.list.map(i, i.x) }}": [1],
        "plain": "plain",
    }
    for template, value in resolved.items():
        assert context.resolve_template(template) == value
    assert context.resolve_dict({"a": [{"b": "{{ inputs.count }}"}], "n": 1}) == {"a": [{"b": 5}], "n": 1}
    with pytest.raises(ExpressionError, match="there is no 'zz' there"):
        context.resolve_template("{{ inputs.zz }}")


def test_a_context_goes_into_a_session_and_comes_out_again(manager: SessionManager) -> None:
    context = WorkflowContext({"a": 1}, "w", "e")
    context.set_step_result("s", [1])
    context.set_output("o", 2)
    assert WorkflowContext.from_dict(context.to_dict()).to_dict() == context.to_dict()
    session = manager.create_session("r1")
    context.to_session(session)
    manager.save_session(session)
    assert manager.get_value("r1", "step.s") == [1]
    again = WorkflowContext.from_session(manager, "r1")
    assert (again.inputs, again.outputs, again.get("steps.s.result[0]")) == ({"a": 1}, {"o": 2}, 1)


def test_what_evaluates_imports_nothing_from_where_somebody_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("json", "encodings", "cel", "faulthandler", "mcp_sessions"):
        (tmp_path / f"{module}.py").write_text("from pathlib import Path\nPath('taken').touch()\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with Evaluator() as evaluator:
        assert evaluator.evaluate(Expression("[1].map(x, x + 1)"), {}) == [2]
        assert evaluator.evaluate_each(Expression("item + n"), [{"item": 1}, {"item": "a"}], {"n": 1})[0] == 2
    assert not (tmp_path / "taken").exists()
