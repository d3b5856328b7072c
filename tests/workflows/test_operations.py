"""Operations: what each gives, what each refuses, and that nothing an author writes can hang one."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from mcp_sessions.errors import ExpressionError, InvalidArgumentError
from mcp_sessions.workflows import bounded
from mcp_sessions.workflows.operations import OPERATIONS, check_operation, comparing, run_operation

DOCUMENT = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
STEPS = re.findall(r"^```yaml\n(.*?)^```\n\n```json\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)

PEOPLE = [{"name": "Ada", "age": 36, "at": {"city": {"zip": "1"}}}, {"name": "Bo", "age": 7}, "Cy", None]


def aggregated(function: str, items: Any, **config: Any) -> Any:
    return run_operation("aggregate", {"function": function, **config}, {"items": items})["result"]


def filtered(condition: str, items: Any, **config: Any) -> Any:
    return run_operation("filter", {"condition": condition, **config}, {"items": items})["filtered_items"]


def mapped(function: str, items: Any, **config: Any) -> Any:
    return run_operation("map", {"function": function, **config}, {"items": items})["mapped_items"]


# the document


@pytest.mark.parametrize(("step", "result"), STEPS, ids=[yaml.safe_load(step)["id"] for step, _ in STEPS])
def test_a_step_of_the_document_gives_the_result_below_it(step: str, result: str) -> None:
    written = yaml.safe_load(step)
    check_operation(written["operation"], written.get("config"))
    assert run_operation(written["operation"], written.get("config"), written["with"]) == json.loads(result)


def test_the_document_tells_of_each_operation_with_a_step_and_its_configuration() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \|(.*?)\|", DOCUMENT, re.MULTILINE))
    told = {name: re.findall(r"(?:^|,) `(\w+)`", row) for name, row in rows.items()}
    assert told == {name: list(operation.model_fields) for name, operation in OPERATIONS.items()}
    assert {yaml.safe_load(step)["operation"] for step, _ in STEPS} == set(OPERATIONS)


# items


@pytest.mark.parametrize(
    ("inputs", "count"), [({"items": [1, 2]}, 2), ({"items": "one"}, 1), ({"items": None}, 1), ({"a": 1, "b": [2]}, 2)]
)
def test_items_are_a_list_one_value_or_all_inputs(inputs: dict[str, Any], count: int) -> None:
    assert run_operation("aggregate", {"function": "count"}, inputs)["item_count"] == count
    assert run_operation("filter", {"condition": "equals"}, inputs)["original_count"] == count
    assert run_operation("map", {"function": "extract", "fields": "a"}, inputs)["original_count"] == count


@pytest.mark.parametrize(
    ("name", "config", "listed"),
    [
        ("aggregate", {"function": "count"}, "items"),
        ("filter", {"condition": "equals"}, "items"),
        ("map", {"function": "extract", "fields": "a"}, "items"),
        ("summarize", {}, "findings"),
    ],
)
def test_lists_have_at_most_ten_thousand_members(name: str, config: dict[str, Any], listed: str) -> None:
    run_operation(name, config, {listed: [1] * 10_000})
    with pytest.raises(InvalidArgumentError, match=r"There are 10,001 .*at most 10,000"):
        run_operation(name, config, {listed: [1] * 10_001})


# aggregate


@pytest.mark.parametrize(
    ("function", "items", "result"),
    [
        ("sum", [1, 2, "3", None], 6.0),
        ("sum", [], 0),
        ("sum", [1, "x"], {"error": "Cannot sum non-numeric values"}),
        ("sum", [[1]], {"error": "Cannot sum non-numeric values"}),
        ("avg", [2, 4, None], 3.0),
        ("avg", [None], 0),
        ("avg", ["x"], {"error": "Cannot average non-numeric values"}),
        ("count", [1, None, "", 0], 3),
        ("min", [5, 2, None, 8], 2),
        ("min", [], None),
        ("min", [1, "a"], {"error": "Cannot find min of incomparable values"}),
        ("max", ["b", "a"], "b"),
        ("max", [None], None),
        ("max", [{}, {}], {"error": "Cannot find max of incomparable values"}),
        ("group_by", ["a", 1, "a", None], {"a": 2, "1": 1}),
        ("concat", ["a", None, 1], "a, 1"),
    ],
)
def test_aggregate_makes_one_value_of_many(function: str, items: list[Any], result: Any) -> None:
    assert aggregated(function, items) == result


def test_sums_and_averages_are_fractions_as_numbers_and_texts_are_mixed() -> None:
    assert json.dumps([aggregated("sum", [1, 2]), aggregated("avg", [1, 3])]) == "[3.0, 2.0]"


@pytest.mark.parametrize("items", [["nan"], ["1e999"], [1e308, 1e308], [2**1023, 2**1023]])
def test_a_sum_that_json_cannot_hold_is_told_as_an_error(items: list[Any]) -> None:
    assert aggregated("sum", items) == {"error": "Cannot sum non-numeric values"}
    assert aggregated("avg", items) == {"error": "Cannot average non-numeric values"}


def test_groups_are_of_the_objects_that_have_the_field() -> None:
    items = [{"a": 1}, {"a": "1", "b": 2}, {"b": 3}, "text", {"a": None}]
    assert aggregated("group_by", items, field="a") == {"1": [{"a": 1}, {"a": "1", "b": 2}], "None": [{"a": None}]}


def test_a_separator_stands_between_texts() -> None:
    assert aggregated("concat", ["foo", "bar"], separator=" | ") == "foo | bar"


# filter


@pytest.mark.parametrize(
    ("condition", "value", "kept"),
    [
        ("equals", "a", ["a"]),
        ("equals", None, [None]),
        ("not_equals", "a", ["ab", 5, "6", None, [7]]),
        ("contains", "a", ["a", "ab"]),
        ("not_contains", "a", [5, "6", None, [7]]),
        ("greater_than", "5", ["6"]),
        ("greater_than", 4.5, [5, "6"]),
        ("less_than", 6, [5]),
        ("regex", "^a.", ["ab"]),
        ("regex", r"\d", [5, "6", [7]]),
        ("regex", "(?i)B$", ["ab"]),
    ],
)
def test_filter_keeps_the_items_for_which_a_condition_holds(condition: str, value: Any, kept: list[Any]) -> None:
    items = ["a", "ab", 5, "6", None, [7]]
    assert filtered(condition, items, value=value) == kept
    others = [item for item in items if item not in kept]
    assert filtered(condition, items, value=value, keep_matching=False) == others


def test_a_condition_looks_at_a_field_where_an_item_has_fields() -> None:
    assert filtered("equals", PEOPLE, field="name", value="Bo") == [PEOPLE[1]]
    assert filtered("contains", PEOPLE, field="name", value="C") == ["Cy"]
    assert filtered("equals", PEOPLE, field="at", value=None) == [PEOPLE[1], None]
    assert filtered("regex", PEOPLE, field="age", value="^36$") == [PEOPLE[0]]


@pytest.mark.parametrize(
    ("expression", "kept"),
    [
        ("item.age > 30", PEOPLE[:1]),
        ("item == 'Cy' || item == null", PEOPLE[2:]),
        ("item[field] == value", PEOPLE[1:2]),
        ("item.at.city.zip", PEOPLE[:1]),
        ("item.name.matches('^B') && has(item.age)", PEOPLE[1:2]),
    ],
)
def test_a_custom_condition_is_an_expression_and_fails_for_an_item_that_lacks_what_it_reads(
    expression: str, kept: list[Any]
) -> None:
    assert filtered("custom", PEOPLE, expression=expression, field="name", value="Bo") == kept


# map


@pytest.mark.parametrize(
    ("fields", "result"),
    [
        ("name", ["Ada", "Bo"]),
        (["age"], [36, 7]),
        (["name", "x"], [{"name": "Ada", "x": None}, {"name": "Bo", "x": None}]),
    ],
)
def test_extract_gives_values_of_one_field_or_objects_of_several(fields: Any, result: list[Any]) -> None:
    assert run_operation("map", {"function": "extract", "fields": fields}, {"items": PEOPLE}) == {
        "mapped_items": result,
        "item_count": 2,
        "original_count": 4,
    }


def test_project_follows_paths_and_leaves_alone_what_is_no_object() -> None:
    made = mapped("project", PEOPLE, projection={"who": "name", "zip": "at.city.zip", "deep": "name.first"})
    assert made == [{"who": "Ada", "zip": "1", "deep": None}, {"who": "Bo", "zip": None, "deep": None}, "Cy", None]


def test_compute_adds_a_field_to_a_copy() -> None:
    items: list[Any] = [{"age": 3}, 7]
    made = mapped("compute", items, expression="value == 7 ? item.value * 2 : item.age + 1")
    assert made == [{"age": 3, "computed": 4}, {"value": 7, "computed": 14}]
    assert items == [{"age": 3}, 7]


def test_transform_puts_what_an_expression_gives_in_the_place_of_an_item() -> None:
    assert mapped("transform", [1, 2], expression="{'n': item, 'odd': item % 2 == 1}") == [
        {"n": 1, "odd": True},
        {"n": 2, "odd": False},
    ]


def test_an_item_that_an_expression_fails_for_says_why_in_its_place() -> None:
    computed, transformed = (
        mapped(function, [{"a": 1}, {}], expression="item.a") for function in ("compute", "transform")
    )
    assert computed[0] == {"a": 1, "computed": 1}
    assert "'a'" in computed[1]["computed"]["error"]
    assert transformed[0] == 1
    assert transformed[1] == {"error": computed[1]["computed"]["error"], "original": {}}


# compare_results, verify_consensus


def compared(*texts: Any, **inputs: Any) -> Any:
    return run_operation("compare_results", {}, {f"m{n}_result": text for n, text in enumerate(texts)} | inputs)


@pytest.mark.parametrize(
    ("one", "other", "score", "consensus"),
    [
        ("The quick brown fox", "The  quick\nbrown fox ", 1.0, "Strong"),
        ("a b c d e f g h i j", "a b c d e f g h x", 0.842, "Moderate"),
        ("a b c d", "a b x y", 0.657, "Weak"),
        ("Machine learning algorithms", "Quantum physics equations", 0.281, "No consensus"),
        (" ", "\n", 1.0, "Strong"),
        (" ", "text", 0.0, "No consensus"),
        ({"a": 1}, "{'a': 1}", 1.0, "Strong"),
    ],
)
def test_scores_are_of_letters_words_and_lengths(one: Any, other: Any, score: float, consensus: str) -> None:
    result = compared(one, other)
    assert result["similarity_scores"] == {"m0_vs_m1": score}
    assert result["consensus"].startswith(consensus)


def test_each_pair_of_results_is_compared_and_all_must_reach_the_threshold() -> None:
    result = compared("one two", "one two", "one two three", threshold="0.8", other="not compared")
    assert result["similarity_scores"] == {"m0_vs_m1": 1.0, "m0_vs_m2": 0.658, "m1_vs_m2": 0.658}
    assert (result["average_similarity"], result["threshold"], result["all_similar"]) == (0.772, 0.8, False)
    assert result["model_count"] == 3
    assert result["differences"]["unique_words_per_model"] == {"m2": ["three"]}
    assert compared("one two", "one two", "one two three", threshold=0.65)["all_similar"] is True


def test_ten_words_that_only_one_result_has_are_told_in_order() -> None:
    unique = compared("k j i h g f e d c b a Z", "other")["differences"]["unique_words_per_model"]
    assert unique == {"m0": list("abcdefghij"), "m1": ["other"]}


def test_empty_results_are_not_compared() -> None:
    assert compared("text", "", None) == {
        "error": "Need at least 2 model results to compare",
        "all_similar": False,
        "similarity_scores": {},
    }
    assert compared("text", "", "text")["model_count"] == 2


@pytest.mark.parametrize(
    ("similar", "average", "recommendation"),
    [
        (True, 0.8, "Models agree - results are reliable and can be used with high confidence"),
        (False, 0.66, "Models mostly agree - results are generally reliable with minor variations"),
        (
            False,
            0.3,
            "Models disagree significantly - manual review recommended or rerun with different models",
        ),
    ],
)
def test_a_comparison_is_judged(similar: bool, average: float, recommendation: str) -> None:
    comparison = {"all_similar": similar, "average_similarity": average, "consensus": "So so"}
    assert run_operation("verify_consensus", {}, {"comparison": comparison}) == {
        "verified": similar,
        "average_similarity": average,
        "threshold": 0.75,
        "passed_threshold": average >= 0.75,
        "consensus_level": "So so",
        "recommendation": recommendation,
    }


@pytest.mark.parametrize("comparison", [None, {}])
def test_without_a_comparison_nothing_is_verified(comparison: Any) -> None:
    result = run_operation("verify_consensus", {}, {"comparison": comparison})
    assert result == {"verified": False, "reason": "No comparison data available"}


def test_a_comparison_that_had_too_few_results_is_not_verified() -> None:
    result = run_operation("verify_consensus", {}, {"comparison": compared("text", "")})
    assert (result["verified"], result["average_similarity"], result["consensus_level"]) == (False, 0.0, "Unknown")


# summarize

FINDINGS = [
    {
        "task": "Find it",
        "task_index": 0,
        "exploration_type": "usage",
        "finding": {"query": "Where?", "status": "completed", "result": "x" * 150},
        "timestamp": "2026-01-01T00:00:00Z",
        "session_id": "s",
    },
    {"finding": {"query": "Why?", "status": "failed", "result": None}},
]


def summarized(how: str, findings: Any = FINDINGS, **config: Any) -> Any:
    return run_operation("summarize", {"summary_format": how, **config}, {"findings": findings})["summary"]


def test_a_detailed_summary_keeps_all() -> None:
    told = [
        {"index": 0, "task": "Find it", "exploration_type": "usage", "finding": FINDINGS[0]["finding"]},
        {"index": 1, "task": None, "exploration_type": None, "finding": FINDINGS[1]["finding"]},
    ]
    assert summarized("detailed", include_metadata=False) == {"total_findings": 2, "findings": told}
    told[0]["metadata"] = {"task_index": 0, "timestamp": "2026-01-01T00:00:00Z", "session_id": "s"}
    told[1]["metadata"] = {"task_index": None, "timestamp": None, "session_id": None}
    assert summarized("detailed") == {"total_findings": 2, "findings": told}


def test_a_concise_summary_keeps_the_beginning_of_each_result() -> None:
    assert summarized("concise") == {
        "total_findings": 2,
        "key_findings": [
            {"query": "Where?", "status": "completed", "result_preview": "x" * 100},
            {"query": "Why?", "status": "failed", "result_preview": "N/A"},
        ],
        "metadata": {
            "exploration_types": ["usage"],
            "first_timestamp": "2026-01-01T00:00:00Z",
            "last_timestamp": None,
        },
    }
    assert "metadata" not in summarized("concise", include_metadata=False)


def test_a_concise_summary_counts_a_finding_that_was_left_out_but_leaves_out_one_that_is_a_text() -> None:
    summary = summarized("concise", [{"task": "Find it"}, {"finding": "text"}], include_metadata=False)
    assert summary == {
        "total_findings": 2,
        "key_findings": [{"query": "", "status": "unknown", "result_preview": "N/A"}],
    }


def test_a_structured_summary_groups_by_the_type_of_exploration() -> None:
    assert summarized("structured") == {
        "total_findings": 2,
        "by_exploration_type": {
            "usage": {"count": 1, "findings": [{"task": "Find it", "finding": FINDINGS[0]["finding"]}]},
            "unknown": {"count": 1, "findings": [{"task": None, "finding": FINDINGS[1]["finding"]}]},
        },
        "metadata": {"exploration_types": ["usage", "unknown"], "counts_by_type": {"usage": 1, "unknown": 1}},
    }
    assert "metadata" not in summarized("structured", include_metadata=False)


@pytest.mark.parametrize("inputs", [{}, {"findings": []}])
def test_no_findings_are_a_summary_that_says_so(inputs: dict[str, Any]) -> None:
    assert run_operation("summarize", {"session_id": "s"}, inputs) == {
        "summary": {"message": "No findings to summarize", "findings": []},
        "finding_count": 0,
        "session_files_read": [],
        "metadata": {"session_id": "s", "summary_format": "detailed"},
    }


def test_a_finding_may_be_one_alone_and_a_bare_answer() -> None:
    result = run_operation("summarize", {"include_metadata": False}, {"findings": "It is in a.py", "session_id": "s"})
    assert result["summary"]["findings"] == [
        {"index": 0, "task": None, "exploration_type": None, "finding": {"result": "It is in a.py"}}
    ]
    assert result["metadata"]["session_id"] == "s"


# refusals

REFUSED = [
    ("agregate", {}, r"Unknown operation 'agregate'\. Did you mean 'aggregate'\?"),
    ("zzz", {}, r"Unknown operation 'zzz'\. There are aggregate, filter, map,"),
    ("aggregate", {}, "'function' is missing in its config. It is one of sum, avg, count"),
    ("aggregate", {"function": "summ"}, r"'function' cannot be 'summ'\. Did you mean 'sum'\?"),
    ("aggregate", {"function": ["sum"]}, r"'function' cannot be .*"),
    ("aggregate", {"function": "median"}, "'function' cannot be 'median'"),
    ("aggregate", {"function": "sum", "feild": "a"}, r"unknown key 'feild' in its config\. Did you mean 'field'\?"),
    (
        "aggregate",
        {"function": "sum", "zzz": 1},
        "It takes function, field, separator.",
    ),
    ("aggregate", {"function": "sum", "feild": "{{ inputs.x }}"}, "unknown key 'feild'"),
    ("aggregate", {"function": "concat", "separator": 1}, "'separator' should be a valid string"),
    ("aggregate", {"function": "concat", "separator": "-" * 1_001}, "at most 1000 characters"),
    ("aggregate", {"function": "sum", "field": float("nan")}, "its config: a value has NaN"),
    ("aggregate", [], "its config should be an object"),
    ("filter", {"value": 1}, "'condition' is missing in its config. It is one of equals"),
    ("filter", {"condition": "equal"}, r"'condition' cannot be 'equal'\. Did you mean 'equals'\?"),
    ("filter", {"condition": "contains", "value": 404}, "'value' should be a text"),
    ("filter", {"condition": "not_contains"}, "'value' should be a text"),
    ("filter", {"condition": "greater_than", "value": "many"}, "'value' should be a number"),
    ("filter", {"condition": "less_than"}, "'value' should be a number"),
    ("filter", {"condition": "regex", "value": "("}, r"'value' cannot be '\(': it is no regular expression"),
    ("filter", {"condition": "regex", "value": r"(?=a)"}, "no look-around"),
    ("filter", {"condition": "regex", "value": r"\pL{900}"}, "too large"),
    ("filter", {"condition": "regex"}, "'value' should be a regular expression"),
    ("filter", {"condition": "equals", "keep_matching": "perhaps"}, "'keep_matching' should be a valid boolean"),
    ("filter", {"condition": "custom"}, "'expression' is missing"),
    ("filter", {"condition": "custom", "expression": "item."}, "'expression' .*Syntax error"),
    ("filter", {"condition": "custom", "expression": "itm > 1"}, "'expression' reads 'itm', which is not known"),
    ("map", {"function": "extrct"}, r"Did you mean 'extract'\?"),
    ("map", {"function": "extract"}, "'fields' is missing"),
    ("map", {"function": "extract", "fields": ["a", 1]}, r"'fields'\[1\] should be a valid string"),
    ("map", {"function": "project"}, "'projection' is missing"),
    ("map", {"function": "project", "projection": {"a": 1}}, r"'projection'\['a'\] should be a valid string"),
    ("map", {"function": "project", "projection": {str(n): "a" for n in range(101)}}, "at most 100 items"),
    ("map", {"function": "compute"}, "'expression' is missing"),
    ("map", {"function": "compute", "expression": "item.a", "output_field": 1}, "'output_field' should be"),
    ("map", {"function": "transform", "expression": "value"}, "reads 'value', which is not known: there are item"),
    ("map", {"function": "transform", "expression": "item." + "a" * 2_000}, "characters; at most 2,000"),
    ("compare_results", {"threshold": 0.5}, "unknown key 'threshold' in its config. It takes none."),
    ("verify_consensus", {"threshold": 0.5}, "unknown key 'threshold' in its config. It takes none."),
    ("summarize", {"summary_format": "short"}, "'summary_format' cannot be 'short'. It is one of detailed"),
    ("summarize", {"output_file": "out.json"}, "unknown key 'output_file'"),
]


@pytest.mark.parametrize(("name", "config", "words"), REFUSED)
def test_what_is_written_wrong_is_refused_before_and_when_it_runs(name: str, config: Any, words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words) as before:
        check_operation(name, config)
    with pytest.raises(InvalidArgumentError) as running:
        run_operation(name, config, {"items": [1]})
    assert str(running.value) == str(before.value)


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(InvalidArgumentError, match=r"unknown key 'field_name'.*'function' is missing.*'separator'"):
        check_operation("aggregate", {"field_name": "a", "separator": 1})


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("aggregate", {"function": "{{ inputs.function }}"}),
        ("filter", {"condition": "{{ inputs.how }}", "keep_matching": "{{ inputs.keep }}"}),
        ("filter", {"condition": "greater_than", "value": "{{ inputs.least }}"}),
        ("filter", {"condition": "regex", "value": "{{ inputs.pattern }}"}),
        ("filter", {"condition": "custom", "expression": "item > {{ inputs.least }}"}),
        ("map", {"function": "extract", "fields": "{{ inputs.fields }}"}),
        ("map", {"function": "project", "projection": "{{ inputs.projection }}"}),
        ("summarize", {"summary_format": "{{ inputs.how }}", "include_metadata": "{{ inputs.all }}"}),
    ],
)
def test_a_text_with_an_expression_in_it_is_not_judged_before_it_is_known(name: str, config: dict[str, Any]) -> None:
    check_operation(name, config)


def test_only_the_text_with_an_expression_in_it_is_left_for_later() -> None:
    with pytest.raises(InvalidArgumentError, match=r"^filter: 'keep_matching' should be a valid boolean"):
        check_operation("filter", {"condition": "greater_than", "value": "{{ inputs.n }}", "keep_matching": "perhaps"})


@pytest.mark.parametrize(
    ("name", "inputs", "words"),
    [
        ("compare_results", {"a_result": "x", "b": "y"}, "at least 2 inputs whose names end with '_result'; it has 1"),
        ("compare_results", {"a_result": "x", "b_result": "y", "threshold": 75}, "from 0 to 1"),
        ("compare_results", {"a_result": "x", "b_result": "y", "threshold": "nan"}, "from 0 to 1"),
        ("compare_results", {"a_result": "x", "b_result": "y" * 50_001}, "b_result has 50,001 .*at most 50,000"),
        ("compare_results", {f"{n}_result": "x" for n in range(101)}, "There are 101 results; .*at most 100"),
        ("verify_consensus", {}, "needs the input 'comparison'"),
        ("verify_consensus", {"comparison": "alike"}, "what compare_results gave"),
        ("verify_consensus", {"comparison": {"average_similarity": "high"}}, "what compare_results gave"),
        ("verify_consensus", {"comparison": {"all_similar": True}, "threshold": None}, "from 0 to 1"),
        ("summarize", {"session_files": ["a.json"]}, "reads no 'session_files'"),
        ("summarize", {"findings": [float("inf")]}, "its inputs: a value has NaN or an infinity"),
        ("summarize", ["finding"], "its inputs should be an object"),
    ],
)
def test_inputs_that_cannot_be_used_are_refused(name: str, inputs: Any, words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        run_operation(name, {}, inputs)


# what must not run, hang, or grow


@pytest.mark.parametrize("expression", ["__import__('os').system('touch {}')", "open('{}', 'w')"])
@pytest.mark.parametrize(
    ("name", "config"),
    [("filter", {"condition": "custom"}), ("map", {"function": "compute"}), ("map", {"function": "transform"})],
)
def test_no_expression_runs_a_program(name: str, config: dict[str, Any], expression: str, tmp_path: Path) -> None:
    made = tmp_path / "made"
    with pytest.raises(InvalidArgumentError, match="which is no function"):
        run_operation(name, {**config, "expression": expression.format(made)}, {"items": [{}]})
    assert not made.exists()


def test_an_expression_sees_the_fields_of_data_and_nothing_of_python() -> None:
    made = mapped("transform", [{}, {"__class__": 1}], expression="item.__class__")
    assert "no '__class__'" in made[0]["error"]
    assert made[1] == 1


def test_what_stands_in_data_is_never_read_as_an_expression() -> None:
    items = ["{{ 7*7 }}", "0123", "item"]
    assert mapped("transform", items, expression="item") == items
    assert filtered("regex", items, value="^item$") == ["item"]


def test_a_pattern_that_makes_others_backtrack_is_matched() -> None:
    assert filtered("regex", ["a" * 5_000 + "b", "a" * 5_000], value="^(a+)+$") == ["a" * 5_000]


def test_a_pattern_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "MOST_FOR_EACH_S", 2.0)
    with pytest.raises(InvalidArgumentError, match="takes over 2 s, or more memory than there is"):
        filtered("regex", ["01" * 50_000], value="([01]{0,200}){0,200}2")


@pytest.mark.parametrize(
    ("name", "config"),
    [("filter", {"condition": "custom"}), ("map", {"function": "compute"}), ("map", {"function": "transform"})],
)
def test_an_expression_that_takes_too_long_is_given_up(
    name: str, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded, "MOST_FOR_EACH_S", 2.0)
    bomb = "value.map(a, value.map(b, value.map(c, a * b * c))) == []".replace("value", "item.many")
    with pytest.raises(InvalidArgumentError, match="takes over 2 s, or more memory than there is"):
        run_operation(name, {**config, "expression": bomb}, {"items": [{"many": []}, {"many": [1] * 2_000}]})


def test_an_expression_that_takes_too_much_memory_is_given_up() -> None:
    with pytest.raises(InvalidArgumentError, match="or more memory than there is, for all items together"):
        mapped("transform", ["x"], expression="[item]" + ".map(a, a + a)" * 31)


def test_without_a_process_no_item_passes_for_one_that_does_not_match(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHOME", os.devnull)
    with pytest.raises(ExpressionError, match="did not start"):
        filtered("custom", [1], expression="item == 1")
    assert filtered("custom", [], expression="item == 1") == []


def test_all_items_of_an_expression_have_one_limit_of_what_they_give() -> None:
    with pytest.raises(InvalidArgumentError, match="makes over 16,777,216 bytes"):
        mapped("transform", ["x" * 1_000_000] * 17, expression="item")


def test_a_comparison_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "MOST_S", 0.05)
    # Letters in common one by one, with others between them: each is found by going through all that are left.
    one, other = ("".join(chr(0x4E00 + n) + chr(at + n) for n in range(9_000)) for at in (0x10000, 0x20000))
    with pytest.raises(InvalidArgumentError, match=r"takes over 0\.05 s"):
        compared(one, other)
