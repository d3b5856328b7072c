"""SpecializedAgent: asks an executor, and keeps what was said in a session.

Each question is one recorded call: what was asked, what was answered and the record, with its time, tokens and cost,
are one commit. A call that fails leaves its record and no message.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar, cast

import anyio.to_thread

from ..calls import Call
from ..drafts import checked_text
from ..errors import ExecutorError, InvalidArgumentError, SessionEndedError, SessionExistsError
from ..manager import SessionManager
from ..models import ConversationMessage, SessionStatus, TokenUsage, tokens
from ..records import plain
from ..storage import FileSystemSessionStorage, MemorySessionStorage
from ..tools import SESSION_TOOLS, Toolbox
from ..tools.awaiting import awaited
from . import prompts
from .config import AgentConfig
from .executors import executor_for
from .executors.base import Answer, Executor, OnText, amount, count
from .lending import check_names, lent

T = TypeVar("T")
DEFAULT_SESSION = "default"
_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
PAGE = 10
"""Messages that are read at once: each may be a megabyte."""
MODEL_CHARS = 200
MOST_CONTEXT = 16 << 20
"""Bytes."""


class SpecializedAgent(ABC):
    """An agent for one kind of question.

    Its history lives in a session of `session_manager`; where none is given, of files at
    `config.session_storage_path`, else of memory. The session is made where there is none. `toolbox` holds the tools
    that `config.tools` names. Use it in a `with` block, or close it. Raises InvalidArgumentError, StorageError.
    """

    config_type: ClassVar[type[AgentConfig]] = AgentConfig

    def __init__(
        self,
        config: AgentConfig | None = None,
        session_manager: SessionManager | None = None,
        *,
        toolbox: Toolbox = SESSION_TOOLS,
        as_user: str | None = None,
    ) -> None:
        config = config or self.config_type()
        check_names(toolbox, config.tools)
        self.config = config if isinstance(config, self.config_type) else self.config_type(**dict(config))
        self.executor: Executor = executor_for(self.config)
        self._own = session_manager is None
        self.session_manager = session_manager or _manager(self.config)
        self._toolbox = toolbox
        self._as_user = as_user
        self.session_id = self.config.session_id or DEFAULT_SESSION
        try:
            self.set_session(self.session_id)
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        """What records call it: `explore`, of an ExploreAgent."""
        words = _WORD.sub("-", type(self).__name__).lower()
        return words.removesuffix("-agent") or words

    @abstractmethod
    def get_system_prompt(self) -> str:
        """What it is told before every question."""

    def prepare_context(self, **about: Any) -> str | None:  # noqa: ARG002 - for those that override it
        """What it is told beside a question that comes without a context."""
        return None

    async def invoke(
        self,
        prompt: str,
        context: str | None = None,
        include_history: bool = True,
        *,
        remember: bool | None = None,
        on_text: OnText | None = None,
        invocation_id: str | None = None,
        parent_id: str | None = None,
        **about: Any,
    ) -> str:
        """Ask; the answer.

        With the history, what is said goes into it; without, it leaves a record alone, unless it is to `remember`.
        `about` is for `prepare_context`. With an `invocation_id` of the caller's, the same call is made once;
        `parent_id` is the call under which it is made. Raises ExecutorError, SessionEndedError, LimitError, and what a
        commit raises.
        """
        remember = include_history if remember is None else remember
        said: dict[str, Any] = {"prompt": prompt, "context": context, "about": about, "model": self.config.model}
        asks = {name: value for name, value in said.items() if value}
        asks |= {"include_history": False} if not include_history else {}
        asks |= {"remember": True} if remember and not include_history else {}
        call = self.session_manager.call(
            self.name,
            self.session_id,
            asks,
            f"agent:{self.name}",
            invocation_id,
            slow=True,
            as_user=self._as_user,
            parent_id=parent_id,
        )

        async def ask() -> str:
            answer = await self.turn(
                call, prompt, context, include_history, remember=remember, on_text=on_text, **about
            )
            if remember:
                call.result_ref = None, "message:seq.1"
            return answer.text

        return await awaited(call, ask)

    async def batch_invoke(self, prompts: Iterable[str], context: str | None = None, **about: Any) -> list[str]:
        """Ask one after the other, without the history; the answers."""
        if isinstance(prompts, str):
            raise InvalidArgumentError("prompts is one text: give a list of them.", argument="prompts")
        return [await self.invoke(prompt, context, include_history=False, **about) for prompt in prompts]

    async def turn(
        self,
        call: Call,
        prompt: str,
        context: str | None = None,
        include_history: bool = True,
        *,
        remember: bool = True,
        on_text: OnText | None = None,
        **about: Any,
    ) -> Answer:
        """Ask within a call that has begun, in the session of that call; what is said is committed with it, if it is to
        `remember`.
        """
        session_id = call.session_id or self.session_id
        checked_text(prompt, "prompt", self.session_manager.limits.message_bytes)
        context = context if context is not None else self.prepare_context(**about)
        checked_text(context or "", "context", MOST_CONTEXT)
        whole = await anyio.to_thread.run_sync(self._prompt, session_id, prompt, context, include_history)
        call.model = self.config.model or self.executor.name  # whatever comes, a price that is not known is none of 0
        if remember:
            call.draft.add_message("user", prompt, invocation_id=call.invocation_id)
            if call.arguments.get("prompt") == prompt:
                call.refs["prompt"] = "message:seq.0"
        tools = lent(self._toolbox, self.config.tools, call, self.session_manager, f"agent:{self.name}")
        try:
            answer = await self.executor.run(whole, tools=tools, on_text=on_text)
            self._refuse_none(answer)
        except InvalidArgumentError:
            call.model = None  # nobody was asked
            raise
        except ExecutorError as error:
            if not error.asked:
                call.model = None
            if isinstance(error.answer, Answer):  # it did not answer, and what it did is to be paid
                _count(call, _storable(error.answer))
            raise
        answer = _storable(answer)
        _count(call, answer)
        if remember:
            self._refuse_long(answer.text)
            call.draft.add_message(
                "assistant", answer.text, invocation_id=call.invocation_id, model=answer.model, token_usage=answer.usage
            )
        return answer

    # its history

    def set_session(self, session_id: str) -> None:
        """Go on in another session, which is made where there is none."""
        with suppress(SessionExistsError):
            self.session_manager.create_session(
                session_id, purpose=f"{type(self).__name__} session", user_id=self._as_user
            )
        self.session_manager.metadata(session_id, as_user=self._as_user)
        self.session_id = session_id

    def get_session_history(self, session_id: str | None = None) -> list[dict[str, str]]:
        """What was said in a session, its own by default: `{"role": …, "content": …}`, oldest first."""
        messages = [*self._messages(session_id or self.session_id)]
        return [{"role": message.role, "content": message.content} for message in reversed(messages)]

    def clear_session_history(self, session_id: str | None = None) -> None:
        """Take back all that was said in a session, its own by default."""
        self.session_manager.clear_conversation(session_id or self.session_id, as_user=self._as_user)

    def close(self) -> None:
        """Let go of the store, where the agent opened it itself."""
        if self._own:
            self.session_manager.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(executor={self.executor.name!r}, model={self.config.model!r}, "
            f"session_id={self.session_id!r})"
        )

    def _messages(self, session_id: str) -> Iterator[ConversationMessage]:
        """Newest first."""
        cursor = None
        while True:
            page = self.session_manager.messages(session_id, PAGE, cursor, as_user=self._as_user)
            yield from page.items
            cursor = page.next_cursor
            if cursor is None:
                return

    def _prompt(self, session_id: str, prompt: str, context: str | None, include_history: bool) -> str:
        head = self.session_manager.metadata(session_id, as_user=self._as_user)
        if head.status is not SessionStatus.ACTIVE:
            raise SessionEndedError(session_id, head.status)  # before anybody is asked, who costs money
        most_chars = self.config.max_prompt_chars
        said = prompts.turns(self._messages(session_id), most_chars) if include_history else ()
        system = self.get_system_prompt()
        checked_text(system, "get_system_prompt()", MOST_CONTEXT)
        if self.config.include_session_in_prompt:
            system = f"{system}\n\n{self._where(session_id)}"
        return prompts.build(system, said, context, prompt, most_chars)

    def _refuse_none(self, answer: object) -> None:
        """Executors are written by others, too."""
        name = self.executor.name
        if not isinstance(answer, Answer):
            raise ExecutorError(f"{name} answered with {type(answer).__name__}, which is no Answer.")
        text = cast("object", answer.text)
        if not isinstance(text, str) or not text.strip():
            raise ExecutorError(f"{name} answered without a text.", answer=answer)

    def _refuse_long(self, text: str) -> None:
        most = self.session_manager.limits.message_bytes
        if (size := len(text.encode())) > most:
            raise ExecutorError(
                f"{self.executor.name} answered {size:,} bytes, and a message has at most {most:,} "
                "(MCP_SESSIONS_MAX_MESSAGE_BYTES). Ask for less."
            )

    def _where(self, session_id: str) -> str:
        folder = self.session_manager.storage.folder_of(session_id)
        kept = "" if folder is None else f"\nIts folder: {folder}"
        return f"Your session: {session_id}{kept}"


def _manager(config: AgentConfig) -> SessionManager:
    path = config.session_storage_path
    return SessionManager(MemorySessionStorage() if path is None else FileSystemSessionStorage(path))


def _storable(answer: Answer) -> Answer:
    """It without what no store keeps, as half an emoji, and without reports that cannot be."""
    text, model = cast("tuple[object, object]", (answer.text, answer.model))
    return replace(
        answer,
        text=plain(text, len(text)) if isinstance(text, str) else "",
        model=plain(model, MODEL_CHARS) if isinstance(model, str) else None,
        cost=amount(answer.cost),
        usage=_countable(answer.usage),
    )


def _countable(usage: object) -> TokenUsage | None:
    if not isinstance(usage, Mapping):
        return None
    reported = cast("Mapping[str, Any]", usage)
    counts = {name: count(reported.get(name)) for name in tokens()}
    return None if None in counts.values() else cast("TokenUsage", counts)


def _count(call: Call, answer: Answer) -> None:
    call.model, call.token_usage, call.cost = answer.model or call.model, answer.usage, answer.cost
    call.paid = answer.text or None
