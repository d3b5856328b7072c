"""A url is all that a user says about where sessions are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcp_sessions import (
    ConfigError,
    FileSystemSessionStorage,
    MemorySessionStorage,
    SQLiteSessionStorage,
    open_storage,
)
from mcp_sessions.storage.opening import path_of


def test_memory_is_a_url() -> None:
    assert isinstance(open_storage("memory:"), MemorySessionStorage)


def test_a_folder_is_a_store_of_files(tmp_path: Path) -> None:
    with open_storage(f"file://{tmp_path}/my%20sessions") as storage:
        assert isinstance(storage, FileSystemSessionStorage)
        assert storage.sessions_dir == tmp_path / "my sessions"


@pytest.mark.parametrize("slashes", ["/", "//", "///", "////"])
def test_any_number_of_leading_slashes_is_one(tmp_path: Path, slashes: str) -> None:
    with open_storage(f"sqlite:{slashes}{str(tmp_path).lstrip('/')}/a.db") as storage:
        assert isinstance(storage, SQLiteSessionStorage)
        assert storage.path == tmp_path / "a.db"


def test_escapes_are_decoded(tmp_path: Path) -> None:
    with open_storage(f"sqlite://{tmp_path}/my%20caf%C3%A9%3F.db") as storage:
        assert isinstance(storage, SQLiteSessionStorage)
    assert (tmp_path / "my café?.db").exists()


@pytest.mark.parametrize(
    ("url", "fact"),
    [
        ("sessions.db", "not a storage url"),
        ("sqlite:relative.db", "no absolute path"),
        ("sqlite:///", "no absolute path"),
        ("file:notes", "no absolute path; write file:///abs/folder"),
        ("sqlite:///a%00b", "no absolute path"),
        ("mysql://host/db", "names no storage"),
        ("", "not a storage url"),
    ],
)
def test_another_url_is_refused_with_what_would_do(url: str, fact: str) -> None:
    with pytest.raises(ConfigError, match=fact) as refused:
        open_storage(url)
    assert ":///abs" in str(refused.value)


def test_a_windows_drive_loses_its_slash_on_windows_alone() -> None:
    assert path_of("///C:/x.db", "sqlite:///C:/x.db") in ("/C:/x.db", "C:/x.db")


def test_a_password_in_a_url_is_not_repeated() -> None:
    with pytest.raises(ConfigError) as refused:
        open_storage("postgresql://me:hunter2@host/db")
    assert "hunter2" not in str(refused.value)
