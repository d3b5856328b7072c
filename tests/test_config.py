"""Settings, as a user gives them: in the environment and in a `.env` of the working directory."""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath

import pytest

from mcp_sessions.config import Settings, sqlite_url, variable
from mcp_sessions.errors import ConfigError
from mcp_sessions.models import Limits
from mcp_sessions.storage import open_storage

EXAMPLE = Path(__file__).parents[1] / ".env.example"
PLACES = ["environment", ".env"]


def give(monkeypatch: pytest.MonkeyPatch, place: str, **settings: str) -> None:
    if place == "environment":
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
    else:
        lines = [f"{name}={value}\n" for name, value in settings.items()]
        Path(".env").write_text("".join(lines), encoding="utf-8")


def refusal(**settings: str) -> str:
    """What Settings says against these variables."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        give(monkeypatch, "environment", **settings)
        with pytest.raises(ConfigError) as refused:
            Settings()
    return str(refused.value)


def test_sessions_are_kept_in_the_users_data_directory_unless_said_otherwise(tmp_path: Path) -> None:
    storage = Settings().storage
    assert storage.startswith("sqlite:///")
    assert storage.endswith("/mcp-sessions/sessions.db")
    assert f"/{tmp_path.name}/home/" in storage


@pytest.mark.parametrize(
    ("path", "url"),
    [
        (PurePosixPath("/home/ada/sessions.db"), "sqlite:///home/ada/sessions.db"),
        (
            PurePosixPath("/Users/ada/Application Support/50%.db"),
            "sqlite:///Users/ada/Application%20Support/50%25.db",
        ),
        (PurePosixPath("/srv/a#b?c.db"), "sqlite:///srv/a%23b%3Fc.db"),
        (PureWindowsPath(r"C:\Users\Zoë\sessions.db"), "sqlite:///C:/Users/Zo%C3%AB/sessions.db"),
    ],
)
def test_a_path_of_any_system_becomes_a_url(path: PurePath, url: str) -> None:
    assert sqlite_url(path) == url


def test_the_url_of_a_path_opens_that_path(tmp_path: Path) -> None:
    path = tmp_path / "50% of a#b?c ë.db"
    open_storage(sqlite_url(path)).close()
    assert path.exists()


@pytest.mark.parametrize("place", PLACES)
def test_a_setting_is_taken_from_the_environment_and_from_dotenv(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, place, MCP_SESSIONS_PORT="9000", WORKFLOW_SESSION_STORAGE="memory")
    settings = Settings()
    assert (settings.port, settings.workflow_session_storage) == (9000, "memory")


def test_arguments_go_before_the_environment_and_that_before_dotenv(monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, ".env", MCP_SESSIONS_HOST="::1", MCP_SESSIONS_PORT="1", MCP_SESSIONS_DURABILITY="process")
    give(monkeypatch, "environment", MCP_SESSIONS_HOST="::2", MCP_SESSIONS_PORT="2")
    settings = Settings(host="::3")
    assert (settings.host, settings.port, settings.durability) == ("::3", 2, "process")


def test_empty_means_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, "environment", **{variable(field): "" for field in Settings.model_fields})
    assert Settings() == Settings(_env_file=None)
    assert Settings().port == 8765


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("MCP_SESSIONS_TOKEN", "MCP_SESSIONS_TOKENS"),
        ("mcp_sessions_storag", "MCP_SESSIONS_STORAGE"),
        ("WORKFLOW_SESSION_PAHT", "WORKFLOW_SESSION_PATH"),
    ],
)
@pytest.mark.parametrize("value", ["x", ""])
def test_a_misspelt_name_is_refused_with_a_suggestion(
    place: str, misspelt: str, meant: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(monkeypatch, place, **{misspelt: value})
    with pytest.raises(ConfigError) as refused:
        Settings()
    assert f"{misspelt.upper()} in " in str(refused.value)
    assert f"{place}: did you mean {meant}?" in str(refused.value)


def test_a_name_that_resembles_nothing_is_refused_with_those_that_are_known() -> None:
    assert "STORAGE, PATH" in refusal(WORKFLOW_SESSION_BACKEND="x")


@pytest.mark.parametrize("place", PLACES)
def test_names_of_others_are_not_ours(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, place, MCP_SESSION_ID="x", STORAGE="x", PORT="x", WORKFLOW_ID="x", OPENAI_API_KEY="x")
    assert Settings().port == 8765


def test_a_misspelt_argument_is_refused() -> None:
    with pytest.raises(ConfigError, match="prot"):
        Settings(prot=9000)


@pytest.mark.parametrize("text", ["core, records", '["core", "records"]', " core,records, "])
def test_a_list_has_commas_or_is_json(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, "environment", MCP_SESSIONS_TOOLSETS=text, MCP_SESSIONS_REDACT="[]")
    settings = Settings()
    assert settings.toolsets == ("core", "records")
    assert settings.redact == ()


@pytest.mark.parametrize("text", ["ada=s3=, bob=t", '{"ada": "s3=", "bob": "t"}'])
def test_tokens_are_pairs_or_json(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, "environment", MCP_SESSIONS_TOKENS=text)
    tokens = Settings().tokens
    assert {user: token.get_secret_value() for user, token in tokens.items()} == {"ada": "s3=", "bob": "t"}


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("24h", timedelta(hours=24)),
        ("7d", timedelta(days=7)),
        ("30M", timedelta(minutes=30)),
        ("2w", timedelta(weeks=2)),
        ("90s", timedelta(seconds=90)),
        ("3600", timedelta(hours=1)),
    ],
)
def test_a_duration_is_a_number_with_its_unit_or_seconds(
    text: str, duration: timedelta, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(monkeypatch, "environment", MCP_SESSIONS_ABANDON_AFTER=text)
    assert Settings().abandon_after == duration


@pytest.mark.parametrize("text", ["soon", "0", "0d", "-1h", "1.5h", "24 hours", "999999999999w"])
def test_no_other_duration_is_taken(text: str) -> None:
    assert "30m, 24h, 7d" in refusal(MCP_SESSIONS_ABANDON_AFTER=text)


def test_everything_that_is_wrong_is_said_at_once_by_the_names_that_were_set() -> None:
    said = refusal(MCP_SESSIONS_PORT="http", MCP_SESSIONS_TOOLSETS="core,mange", MCP_SESSIONS_RETENTION_DAYS="0")
    port, toolsets, retention = said.splitlines()
    assert port.startswith("MCP_SESSIONS_PORT: ")
    assert port.endswith("(it is 'http').")
    assert toolsets.startswith("MCP_SESSIONS_TOOLSETS: ")
    assert "'mange'" in toolsets
    assert retention.startswith("MCP_SESSIONS_RETENTION_DAYS: ")


def test_secrets_stand_in_no_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    give(
        monkeypatch,
        "environment",
        MCP_SESSIONS_STORAGE="postgresql://ada:hunter2@db/sessions",
        MCP_SESSIONS_TOKENS="ada=hunter2",
        WORKFLOW_SESSION_STORAGE="postgresql://ada:hunter2@db/runs",
    )
    settings = Settings()
    assert "hunter2" in settings.storage
    assert "hunter2" not in f"{settings!r} {settings} {settings.tokens}"


@pytest.mark.parametrize("tokens", ["hunter2", "ada=hunter2,ada=x", '{"ada": ["hunter2"]}', '{"ada": "hunter2'])
def test_secrets_stand_in_no_error_and_no_traceback(tokens: str, monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, "environment", MCP_SESSIONS_TOKENS=tokens)
    with pytest.raises(ConfigError, match=r"^MCP_SESSIONS_TOKENS: ") as refused:
        Settings()
    assert "hunter2" not in "".join(traceback.format_exception(refused.value))


def test_a_dotenv_that_is_not_text_is_refused_by_name() -> None:
    Path(".env").write_bytes(b"OTHER=1\nMCP_SESSIONS_HOST=\xff\xfe\n")
    with pytest.raises(ConfigError, match=r"^\.env cannot be read: line 2 of /.*/\.env is not UTF-8 text"):
        Settings()


def test_each_limit_has_a_setting_with_its_default_and_reaches_the_core(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Settings().limits() == Limits()
    given = {name: getattr(Limits(), name) - 1 for name in Limits.model_fields}
    give(
        monkeypatch,
        "environment",
        **{f"MCP_SESSIONS_MAX_{name.upper()}": str(n) for name, n in given.items()},
    )
    assert Settings().limits() == Limits(**given)


def test_an_id_may_not_be_longer_than_its_pattern_allows() -> None:
    assert refusal(MCP_SESSIONS_MAX_ID_CHARS="129").startswith("MCP_SESSIONS_MAX_ID_CHARS: ")


def example() -> Mapping[str, str]:
    """The settings that .env.example shows: name -> value."""
    return dict(re.findall(r"^#([A-Z_]+)=(.*)$", EXAMPLE.read_text(encoding="utf-8"), re.MULTILINE))


def test_the_example_lists_every_setting_and_no_other() -> None:
    assert sorted(example()) == sorted(map(variable, Settings.model_fields))


def test_the_example_shows_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, ".env", **example())
    assert Settings() == Settings(_env_file=None)


def test_the_example_leaves_nothing_empty_that_has_a_default() -> None:
    empty = {field for field in Settings.model_fields if not example()[variable(field)]}
    fields = Settings.model_fields
    assert empty == {name for name in fields if fields[name].default in (None, (), {})} | {"storage"}


def test_the_example_says_what_has_no_effect_yet() -> None:
    later = {"TOKENS", "TOKENS_FILE", "ADMINS", "OAUTH_ISSUER", "OAUTH_AUDIENCE"}
    later |= {"RETENTION_DAYS", "ABANDON_AFTER"}
    marked: set[str] = set()
    comment, told = "", False
    for line in EXAMPLE.read_text(encoding="utf-8").splitlines():
        if line.startswith("# ") or not line:
            comment, told = ("" if told else comment) + line, False
        else:
            told = True
            if comment.rpartition("# Later version: ")[1]:
                marked.add(line[1:].partition("=")[0])
    names = {f"MCP_SESSIONS_{name}" for name in later}
    assert marked == names
