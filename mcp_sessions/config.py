"""Settings: what a user may choose without writing code, from the environment and `.env`.

A name that looks like ours and is not known is refused: a misspelt setting that is silently ignored may be
the one that was to protect a server. Read by the composition roots only; the rest gets plain arguments.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal
from urllib.parse import quote

import platformdirs
from pydantic import (
    BeforeValidator,
    Field,
    PositiveInt,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from .errors import ConfigError
from .models import Limits
from .records import SECRET_WORDS

PREFIX = "MCP_SESSIONS_"
WORKFLOW_PREFIX = "WORKFLOW_SESSION_"
LIMITS = Limits()
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_CENTURY = 36_525 * 86_400


def sqlite_url(path: PurePath) -> str:
    """The storage url of an absolute path, of this system or another: sqlite:///abs/path.db, sqlite:///C:/path.db."""
    return "sqlite:///" + quote(path.as_posix().lstrip("/"), safe="/:")


def _default_storage() -> str:
    return sqlite_url(platformdirs.user_data_path("mcp-sessions", appauthor=False) / "sessions.db")


def _listed(value: object) -> object:
    """`a, b` or `["a", "b"]`."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [word for word in map(str.strip, value.split(",")) if word]


def _paired(value: object) -> object:
    """`ada=token, bob=token` or `{"ada": "token"}`. No error shows a token."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("{"):
        return json.loads(value)
    pairs = [pair.partition("=") for pair in value.split(",")]
    tokens = {user.strip(): token.strip() for user, _, token in pairs}
    if len(tokens) < len(pairs) or not all(user and token for user, token in tokens.items()):
        raise ValueError("Give USER=TOKEN pairs with commas between them, each user once, or a JSON object")
    return tokens


def _duration(value: object) -> object:
    """`90`, `90s`, `30m`, `24h`, `7d`, `2w`."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(\d{1,12})([smhdw]?)", value.strip().lower())
    seconds = int(match[1]) * _SECONDS[match[2] or "s"] if match else 0
    if not 0 < seconds <= _CENTURY:
        raise ValueError("Give seconds, or a number with its unit: 30m, 24h, 7d; at most 100 years")
    return timedelta(seconds=seconds)


Words = Annotated[tuple[Annotated[str, StringConstraints(to_lower=True)], ...], NoDecode, BeforeValidator(_listed)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)]
Folders = Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_listed)]
Toolset = Literal["core", "manage", "records", "automation"]


class Settings(BaseSettings):
    """Every setting, with its default; `.env.example` says what each is for.

    Empty means not set. Raises ConfigError, which names each variable that cannot be used; values that may
    hold a secret stand in no error and no repr.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=".env",
        env_file_encoding="utf-8",
        dotenv_filtering="only_existing",
        extra="forbid",
        frozen=True,
        populate_by_name=True,
        hide_input_in_errors=True,
    )

    storage: str = Field(default_factory=_default_storage, repr=False)
    durability: Literal["full", "process"] = "full"

    host: str = "127.0.0.1"
    port: int = Field(default=8765, ge=0, le=65_535)
    tokens: Annotated[dict[str, SecretStr], NoDecode, BeforeValidator(_paired)] = Field(default={}, repr=False)
    tokens_file: Path | None = None
    admins: Names = ()
    oauth_issuer: str | None = None
    oauth_audience: str | None = None

    toolsets: Annotated[tuple[Toolset, ...], NoDecode, BeforeValidator(_listed)] = (
        "core",
        "manage",
        "records",
    )
    retention_days: Annotated[int, Field(ge=1, le=36_525)] | None = None
    abandon_after: Annotated[timedelta, BeforeValidator(_duration)] = timedelta(hours=24)
    redact: Words = SECRET_WORDS

    max_message_bytes: PositiveInt = LIMITS.message_bytes
    max_value_bytes: PositiveInt = LIMITS.value_bytes
    max_payload_bytes: PositiveInt = LIMITS.payload_bytes
    max_key_chars: PositiveInt = LIMITS.key_chars
    max_tags: PositiveInt = LIMITS.tags
    max_tag_chars: PositiveInt = LIMITS.tag_chars
    max_id_chars: PositiveInt = Field(default=LIMITS.id_chars, le=LIMITS.id_chars)
    max_metadata_bytes: PositiveInt = LIMITS.metadata_bytes
    max_record_bytes: PositiveInt = LIMITS.record_bytes
    max_replay_bytes: PositiveInt = LIMITS.replay_bytes
    max_tools_used: PositiveInt = LIMITS.tools_used
    max_key_versions: PositiveInt = LIMITS.key_versions

    agent_executors: Names = ("claude", "codex", "copilot")
    agent_roots: Folders = ()
    agent_timeout: Annotated[timedelta, BeforeValidator(_duration)] = timedelta(minutes=10)
    agent_env: Names = ()
    agent_prompt_chars: PositiveInt = 200_000
    agent_output_bytes: PositiveInt = 16 << 20

    workflow_dir: Path | None = None
    workflow_text: bool = False
    workflow_secrets: Names = ()

    workflow_session_storage: str | None = Field(default=None, validation_alias=WORKFLOW_PREFIX + "STORAGE", repr=False)
    workflow_session_path: Path | None = Field(default=None, validation_alias=WORKFLOW_PREFIX + "PATH")

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError("\n".join(map(_sentence, error.errors(include_url=False)))) from error
        except UnicodeDecodeError as error:
            raise ConfigError(f".env cannot be read: {_not_text(Path('.env'))}") from error
        except OSError as error:
            raise ConfigError(f".env cannot be read: {error}") from error

    def limits(self) -> Limits:
        """The limits, as the core takes them."""
        return Limits(**{name: getattr(self, f"max_{name}") for name in Limits.model_fields})

    @model_validator(mode="before")
    @classmethod
    def _without_empty(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if value != ""}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments before the environment before `.env`; the names in the latter two are checked."""
        for source, place in ((env_settings, "the environment"), (dotenv_settings, ".env")):
            assert isinstance(source, EnvSettingsSource)
            _refuse_unknown(source.env_vars, place)
        return super().settings_customise_sources(
            settings_cls, init_settings, env_settings, dotenv_settings, file_secret_settings
        )


def variable(field: str) -> str:
    """The name of a setting outside Python: `port` -> `MCP_SESSIONS_PORT`."""
    alias = Settings.model_fields[field].validation_alias
    return alias if isinstance(alias, str) else PREFIX + field.upper()


def _not_text(file: Path) -> str:
    """Where a file is not UTF-8."""
    raw = file.read_bytes()
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        return f"line {line} of {file.absolute()} is not UTF-8 text. Save it as UTF-8."
    return "it is not UTF-8 text."


def _refuse_unknown(names: Iterable[str], place: str) -> None:
    known = [variable(field) for field in Settings.model_fields]
    for name in map(str.upper, names):
        prefix = next((prefix for prefix in (PREFIX, WORKFLOW_PREFIX) if name.startswith(prefix)), None)
        if prefix is None or name in known:
            continue
        # Compared without the prefix, or every name would resemble every other.
        endings = [other.removeprefix(prefix) for other in known if other.startswith(prefix)]
        close = difflib.get_close_matches(name.removeprefix(prefix), endings, n=1)
        hint = f"did you mean {prefix}{close[0]}?" if close else f"known are {prefix}… {', '.join(endings)}."
        raise ConfigError(f"Unknown setting {name} in {place}: {hint}")


def _sentence(error: ErrorDetails) -> str:
    """One thing that pydantic found, said about the variable; the value too, unless it may hold a secret."""
    name = str(error["loc"][0])
    field = next((field for field in Settings.model_fields if name in (field, variable(field))), None)
    fact = error["msg"].removeprefix("Value error, ")
    if field is None:
        return f"{name}: {fact}."
    shown = f" (it is {error['input']!r})" if Settings.model_fields[field].repr else ""
    return f"{variable(field)}: {fact}{shown}."
