"""Sessions as the file storage wrote them before there was a log: `save` and `link` do what its methods did."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

CREATED, UPDATED = "2025-11-05T10:00:00.000001", "2025-11-06T11:30:15.250000"


def metadata(session_id: str, **fields: Any) -> dict[str, Any]:
    """SessionMetadata.to_dict(): always these thirteen."""
    return {
        "session_id": session_id,
        "created_at": CREATED,
        "updated_at": UPDATED,
        "status": "active",
        "user_id": None,
        "purpose": None,
        "tags": [],
        "total_invocations": 0,
        "total_duration_ms": 0.0,
        "tools_used": [],
        "estimated_cost": 0.0,
        "token_usage": {},
        "custom_metadata": {},
        **fields,
    }


def message(role: Any, content: Any, second: int = 0, **fields: Any) -> dict[str, Any]:
    """ConversationMessage.to_dict(): always these five."""
    timestamp = f"2025-11-05T10:00:{second:02d}.500000"
    return {
        "role": role,
        "content": content,
        "timestamp": timestamp,
        "tool_name": None,
        "invocation_id": None,
        **fields,
    }


def save(
    tree: Path,
    head: dict[str, Any],
    conversation: list[dict[str, Any]] | None = None,
    invocation_ids: list[Any] | None = None,
    data: dict[str, Any] | None = None,
) -> Path:
    """save_session: all files anew, those of the conversation and the data only if they hold something."""
    directory = tree / head["session_id"]
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "metadata.json").open("w", encoding="utf-8") as file:
        json.dump(head, file, indent=2)
    if conversation:
        with (directory / "conversation.jsonl").open("w", encoding="utf-8") as file:
            for one in conversation:
                file.write(json.dumps(one) + "\n")
    with (directory / "invocations.json").open("w", encoding="utf-8") as file:
        json.dump(invocation_ids or [], file, indent=2)
    if data:
        with (directory / "data.json").open("w", encoding="utf-8") as file:
            json.dump(data, file, indent=2)
    return directory


def link(directory: Path, invocation_dir: Path) -> None:
    """link_invocation: a relative link, named as the directory of the call is."""
    links = directory / "invocations"
    links.mkdir(exist_ok=True)
    (links / invocation_dir.name).symlink_to(os.path.relpath(invocation_dir, links))


def tree(place: Path) -> Path:
    """A tree with a rich, an ended and an empty session; beside it the history that the first one points to."""
    sessions, history = place / ".sessions", place / ".history"
    calls = [history / f"2025-11-05_10-00-0{n}_000000_git_tool" for n in (1, 2)]
    calls[0].mkdir(parents=True)
    rich = save(
        sessions,
        metadata(
            "session_20251105_100000_0a1b2c3d",
            user_id="ada",
            purpose="Näher am Ziel",
            tags=["git", "release"],
            total_invocations=2,
            total_duration_ms=300.5,
            tools_used=["git_tool", "grep"],
            estimated_cost=0.0123,
            token_usage={"input": 1000, "output": 500},
            custom_metadata={"branch": "main", "depth": {"n": [1, None]}},
        ),
        [
            message("user", "Which tag is the last?", 1),
            message("tool", "v1.2", 2, tool_name="git_tool", invocation_id=calls[0].name),
            message("assistant", "v1.2 🎉", 3),
        ],
        [calls[0].name, calls[1].name],
        {"last_tag": "v1.2", "state": {"steps": [1, 2.5, None, True]}},
    )
    for call in calls:
        link(rich, call)
    save(sessions, metadata("default", status="completed"), [message("user", "hi")])
    save(sessions, metadata("session_20251105_100001_00000000"))
    return sessions


def contents(place: Path) -> dict[str, bytes | str]:
    """Every file and link below a directory, to be compared before and after."""
    return {
        str(path.relative_to(place)): str(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in sorted(place.rglob("*"))
        if path.is_symlink() or path.is_file()
    }
