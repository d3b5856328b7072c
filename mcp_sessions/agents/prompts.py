"""What an executor is asked: instructions, as much of the history as there is room for, context, and the question."""

from __future__ import annotations

from collections.abc import Iterable

from ..models import ConversationMessage

_SPEAKERS = {"user": "User", "assistant": "Assistant"}
_BETWEEN = "\n\n---\n\n"


def build(
    system: str, turns: Iterable[list[ConversationMessage]], context: str | None, question: str, most_chars: int
) -> str:
    """The whole prompt. `turns` come newest first; the oldest are left out that would make it longer than that.

    Instructions, context and question are always there, and whole.
    """
    head = f"# System Instructions\n{system}"
    tail = [f"# Context\n{context}"] if context else []
    tail.append(f"# Query\n{question}")
    room = most_chars - len(_BETWEEN.join([head, *tail])) - len(f"{_BETWEEN}# Conversation History\n")
    told: list[str] = []
    for turn in turns:
        text = "\n\n".join(f"**{_SPEAKERS[message.role]}**: {message.content}" for message in turn)
        room -= len(text) + (2 if told else 0)
        if room < 0:
            break
        told.append(text)
    history = ["# Conversation History\n" + "\n\n".join(reversed(told))] if told else []
    return _BETWEEN.join([head, *history, *tail])


def turns(messages: Iterable[ConversationMessage], most_chars: int) -> Iterable[list[ConversationMessage]]:
    """Messages, newest first, as turns, newest first: each begins with what the user said, and is in its order.

    What came before the first question, and messages of tools and instructions, belong to none. No message is read
    beyond the first one that makes all of them longer than that.
    """
    turn: list[ConversationMessage] = []
    for message in messages:
        if message.role not in _SPEAKERS:
            continue
        turn.append(message)
        most_chars -= len(message.content)
        if most_chars < 0:
            return
        if message.role == "user":
            yield turn[::-1]
            turn = []
