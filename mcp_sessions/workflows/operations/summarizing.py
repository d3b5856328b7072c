"""summarize: what explorations found, put in order. Nobody is asked, and no file is read or written."""

from __future__ import annotations

from typing import Any, Literal, cast

from ...errors import InvalidArgumentError
from .operation import Inputs, Operation, listed

PREVIEW_CHARS = 100

Finding = dict[str, Any]


class Summarize(Operation):
    summary_format: Literal["detailed", "concise", "structured"] = "detailed"
    include_metadata: bool = True
    session_id: str | None = None

    def run(self, inputs: Inputs) -> dict[str, Any]:
        """{summary, finding_count, session_files_read, metadata}; the list of files is always empty."""
        if "session_files" in inputs:
            raise InvalidArgumentError(
                "summarize reads no 'session_files': what was found stands in the session. Pass it as 'findings'.",
                argument="session_files",
            )
        findings = [_as_finding(one) for one in listed("findings", inputs.get("findings", []))]
        return {
            "summary": self._summary(findings),
            "finding_count": len(findings),
            "session_files_read": [],
            "metadata": {
                "session_id": self.session_id or inputs.get("session_id"),
                "summary_format": self.summary_format,
            },
        }

    def _summary(self, findings: list[Finding]) -> dict[str, Any]:
        if not findings:
            return {"message": "No findings to summarize", "findings": []}
        match self.summary_format:
            case "detailed":
                summary, metadata = _detailed(findings, self.include_metadata), None
            case "concise":
                summary, metadata = _concise(findings)
            case "structured":
                summary, metadata = _structured(findings)
        if metadata is not None and self.include_metadata:
            summary["metadata"] = metadata
        return {"total_findings": len(findings), **summary}


def _as_finding(one: Any) -> Finding:
    """A finding of `explore`, or the answer of another step in the place of its result."""
    return cast("Finding", one) if isinstance(one, dict) else {"finding": {"result": one}}


def _detailed(findings: list[Finding], with_metadata: bool) -> dict[str, Any]:
    told: list[dict[str, Any]] = []
    for index, finding in enumerate(findings):
        one = {"index": index, **_named(finding, "task", "exploration_type", "finding")}
        if with_metadata:
            one["metadata"] = _named(finding, "task_index", "timestamp", "session_id")
        told.append(one)
    return {"findings": told}


def _concise(findings: list[Finding]) -> tuple[dict[str, Any], dict[str, Any]]:
    found = [
        cast("dict[str, Any]", one.get("finding", {})) for one in findings if isinstance(one.get("finding", {}), dict)
    ]
    key_findings = [
        {
            "query": one.get("query", ""),
            "status": one.get("status", "unknown"),
            "result_preview": str(one["result"])[:PREVIEW_CHARS] if one.get("result") else "N/A",
        }
        for one in found
    ]
    metadata = {
        "exploration_types": sorted({str(one["exploration_type"]) for one in findings if one.get("exploration_type")}),
        "first_timestamp": findings[0].get("timestamp"),
        "last_timestamp": findings[-1].get("timestamp"),
    }
    return {"key_findings": key_findings}, metadata


def _structured(findings: list[Finding]) -> tuple[dict[str, Any], dict[str, Any]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for one in findings:
        groups.setdefault(str(one.get("exploration_type") or "unknown"), []).append(_named(one, "task", "finding"))
    by_type = {name: {"count": len(members), "findings": members} for name, members in groups.items()}
    metadata = {
        "exploration_types": list(groups),
        "counts_by_type": {name: len(members) for name, members in groups.items()},
    }
    return {"by_exploration_type": by_type}, metadata


def _named(finding: Finding, *names: str) -> dict[str, Any]:
    return {name: finding.get(name) for name in names}
