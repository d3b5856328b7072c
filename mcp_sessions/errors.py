"""The tree of errors.

Each names the thing, the fact and the next step, and carries them as attributes.

    SessionsError
    |- InvalidArgumentError (ValueError)        a value that no retry can mend
    |  |- LimitError                            too long, too many, too large
    |  |- InvalidCursorError                    not one of ours, or of another query
    |- ConfigError (ValueError)                 a setting that cannot be used
    |- SessionNotFoundError (LookupError, ValueError)
    |- SessionExistsError (ValueError)
    |- SessionEndedError (ValueError)
    |- ConflictError (ValueError)               a condition of a change does not hold
    |  |- MessageConflictError                  a message_id with other content
    |  |- InvocationConflictError               an invocation_id with another call
    |- InvocationRunningError                   the same call is still at work
    |- InvocationRecordedError                  the same call is done; carries its record
    |- UnknownToolError (LookupError)
    |- ExecutorError                            what an agent asks did not answer
    |- ExpressionError (ValueError)             an expression of a workflow that gives nothing
    |- WorkflowError
    |  |- WorkflowDefinitionError (ValueError)  a definition that cannot be run
    |  |- WorkflowNotFoundError (LookupError)   the session has no run
    |  |- WorkflowMismatchError (ValueError)    the session holds another run
    |  |- WorkflowTakenOverError                another process goes on with the run
    |  |- StepError                             a step failed
    |- StorageError                             the store could not do it
       |- StorageBusyError                      somebody else holds it
       |- SchemaChangedError                    another version of the program owns the file
       |- StorageDamagedError                   its file is not what was written
       |- StorageClosedError

A driver's exception never crosses the storage floor: it becomes a StorageError, with its cause.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .models import Invocation


class SessionsError(Exception):
    """What every error of this package is."""


class InvalidArgumentError(SessionsError, ValueError):
    """A value that cannot be taken; `argument` names it where one is to blame."""

    def __init__(self, message: str, *, argument: str | None = None) -> None:
        super().__init__(message)
        self.argument = argument


class LimitError(InvalidArgumentError):
    """Something is over a limit; `limit` and `actual` are in the unit that the message names."""

    def __init__(self, what: str, actual: int, limit: int, unit: str, *, argument: str | None = None) -> None:
        super().__init__(f"{what} has {actual:,} {unit}; at most {limit:,} are kept. Shorten it.", argument=argument)
        self.actual = actual
        self.limit = limit


class InvalidCursorError(InvalidArgumentError):
    """A cursor that this query did not give out."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"The cursor {why}. Pass next_cursor back unchanged, with the same query; or leave it out to start.",
            argument="cursor",
        )


class ConfigError(SessionsError, ValueError):
    """A setting that is unknown or cannot be used."""


class SessionNotFoundError(SessionsError, LookupError, ValueError):
    """No such session, or one of another user: the two are not told apart."""

    def __init__(self, session_id: str, *, hint: str = "") -> None:
        super().__init__(f"Session {session_id} not found: {hint or 'list sessions to see which exist.'}")
        self.session_id = session_id


class SessionExistsError(SessionsError, ValueError):
    """The id is taken."""

    def __init__(self, session_id: str, *, hint: str = "") -> None:
        super().__init__(f"Session {session_id} already exists{hint or '. Use it, or choose another id.'}")
        self.session_id = session_id


class SessionEndedError(SessionsError, ValueError):
    """The session is over, so its state does not change; records and reads are still taken."""

    def __init__(self, session_id: str, status: str) -> None:
        super().__init__(
            f"Session {session_id} is {status}, so it no longer changes. "
            "Reopen it first (session_update with reopen=true), or create another."
        )
        self.session_id = session_id
        self.status = status


class ConflictError(SessionsError, ValueError):
    """A condition of a change did not hold when it was to be committed; nothing was changed."""

    def __init__(
        self, message: str, *, session_id: str | None = None, expected: int | None = None, actual: int | None = None
    ) -> None:
        super().__init__(message)
        self.session_id = session_id
        self.expected = expected
        self.actual = actual


class MessageConflictError(ConflictError):
    """The message_id is taken by a message with other content."""

    def __init__(self, session_id: str, message_id: str, seq: int) -> None:
        super().__init__(
            f"Message {message_id} of session {session_id} exists (seq {seq}) with other content. "
            "Use another message_id for another message.",
            session_id=session_id,
            actual=seq,
        )
        self.message_id = message_id
        self.seq = seq


class InvocationConflictError(ConflictError):
    """The invocation_id is taken by another call."""

    def __init__(self, message: str, *, invocation_id: str, session_id: str | None = None) -> None:
        super().__init__(message, session_id=session_id)
        self.invocation_id = invocation_id


class InvocationRunningError(SessionsError):
    """The same call is still running, in a process that is alive."""

    def __init__(self, invocation_id: str, tool_name: str, waited_s: float) -> None:
        super().__init__(
            f"Invocation {invocation_id} ({tool_name}) is still running after {waited_s:g} s. "
            "Retry later with the same id to get its result."
        )
        self.invocation_id = invocation_id


class InvocationRecordedError(SessionsError):
    """The call is on record as finished: `record` holds it. Nothing of this change was committed."""

    def __init__(self, record: Invocation) -> None:
        super().__init__(f"Invocation {record.invocation_id} is recorded as {record.status.value}.")
        self.record = record
        self.invocation_id = record.invocation_id


class UnknownToolError(SessionsError, LookupError):
    """No tool of that name, or one that is turned off."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class ExecutorError(SessionsError):
    """An agent got no answer; `exit_code` and `stderr` where a program was asked and ended, and `answer`, an Answer,
    where it was told what this cost. Where it could not even be asked, `asked` is false, and this cost nothing.
    """

    def __init__(
        self,
        message: str,
        *,
        exit_code: int | None = None,
        stderr: str = "",
        answer: object = None,
        asked: bool = True,
    ) -> None:
        super().__init__(message)
        self.asked = asked
        self.exit_code = exit_code
        self.stderr = stderr
        self.answer = answer


class ExpressionError(SessionsError, ValueError):
    """What stands between `{{` and `}}` gives nothing; `source` is it, `fact` why."""

    def __init__(self, source: str, fact: str) -> None:
        shown = source if len(source) <= 120 else source[:119] + "…"
        super().__init__(f"{{{{ {shown} }}}}: {fact.removesuffix('.')}.")
        self.source = source
        self.fact = fact


class WorkflowError(SessionsError):
    """A workflow cannot do what it was asked."""


class WorkflowDefinitionError(WorkflowError, ValueError):
    """A definition that cannot be run; `faults` are all that is wrong with it, each with its line."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


class WorkflowMissingError(WorkflowDefinitionError):
    """There is no definition of that name."""


class WorkflowNotFoundError(WorkflowError, LookupError):
    """The session has no run of a workflow."""

    def __init__(self, session_id: str) -> None:
        super().__init__(
            f"Session {session_id} has no run of a workflow. Those that have one have the tag 'workflow': "
            "`mcp-sessions workflow ls`, or session_query, lists them."
        )
        self.session_id = session_id


class WorkflowMismatchError(WorkflowError, ValueError):
    """The session holds a run of another text, or with other inputs."""


class WorkflowTakenOverError(WorkflowError):
    """Another process goes on with the run, since this one was silent for too long; nothing more is written here."""


class StepError(WorkflowError):
    """A step failed; `kind` is what its record and its state call that."""

    def __init__(self, message: str, kind: str = "StepError") -> None:
        super().__init__(message)
        self.kind = kind


class StorageError(SessionsError):
    """The store could not do what it was asked; nothing that was asked is half done."""


class StorageBusyError(StorageError):
    """Another process holds the store longer than we wait; `holder` says who, where it is known."""

    def __init__(self, path: str, waited_s: float, holder: str) -> None:
        super().__init__(
            f"{path} has been held by {holder} for {waited_s:g} s. "
            "Nothing was written. Let that process go on, or end it, then retry."
        )
        self.path = path
        self.holder = holder


class SchemaChangedError(StorageError):
    """The file belongs to another version of this program."""


class StorageDamagedError(StorageError):
    """What the file holds is not what was written; `fact` is how that shows."""

    def __init__(self, path: str, fact: str) -> None:
        super().__init__(f"{path}: it is damaged. Keep a copy, then run: mcp-sessions doctor ({fact}).")
        self.path = path
        self.fact = fact


class StorageClosedError(StorageError):
    """The storage was closed."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is closed. Open it again.")
