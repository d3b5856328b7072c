"""ExploreAgent: questions about a codebase."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

from ..errors import InvalidArgumentError
from ..records import plain
from .agent import SpecializedAgent
from .config import AgentConfig, CLIType

Operation = Literal["explore", "find_implementation", "analyze_structure", "find_usage", "explain_flow"]


class ExploreAgentConfig(AgentConfig):
    """What an ExploreAgent is told to look at. The executor is told so; what it may read is for its permissions."""

    search_paths: tuple[str | Path, ...] = ()
    file_extensions: tuple[str, ...] = (".py", ".js", ".ts", ".tsx", ".java", ".go", ".rs")
    max_file_size: int = 100_000
    """Bytes."""
    ignore_patterns: tuple[str, ...] = (
        *("node_modules", "__pycache__", ".git", "*.pyc"),
        *("dist", "build", ".venv", "venv"),
    )


class ExploreAgent(SpecializedAgent):
    """Answers questions about a codebase: `codebase_path`, or where its executor runs."""

    config_type: ClassVar[type[AgentConfig]] = ExploreAgentConfig

    def get_system_prompt(self) -> str:
        config = self.config
        assert isinstance(config, ExploreAgentConfig)
        return "\n".join(
            [
                "You explore a codebase and answer questions about it.",
                "",
                "- Look before you answer: read the files themselves, and follow definitions to their uses.",
                "- Name what you rely on as path:line. Quote few lines.",
                "- Tell what you saw from what you conclude. Say so when something is not there.",
                "- Change nothing.",
                "",
                f"Files that count: {', '.join(config.file_extensions)}; none over {config.max_file_size:,} bytes.",
                f"Pass over: {', '.join(config.ignore_patterns)}.",
            ]
        )

    def prepare_context(self, **about: Any) -> str | None:
        config = self.config
        assert isinstance(config, ExploreAgentConfig)
        if unknown := about.keys() - {"codebase_path"}:
            raise InvalidArgumentError(
                f"Unknown argument '{min(unknown)}': there is codebase_path.", argument=min(unknown)
            )
        told: Mapping[str, Any] = {
            "Codebase Path": about.get("codebase_path"),
            "Working Directories": ", ".join(map(str, config.working_directories)),
            "Current Directory": config.cwd,
            "Search Paths": ", ".join(map(str, config.search_paths)),
        }
        lines = [f"{name}: {value}" for name, value in told.items() if value]
        for line in lines:
            if plain(line, len(line)) != line:
                raise InvalidArgumentError(f"{line!a} is not UTF-8, so nobody can be told it. Rename that directory.")
        return "\n".join(lines) or None

    async def explore(self, question: str, codebase_path: str | os.PathLike[str] | None = None, **how: Any) -> str:
        """Answer a question. `how`: see `invoke`."""
        return await self.operate("explore", question, codebase_path, **how)

    async def find_implementation(
        self, feature: str, codebase_path: str | os.PathLike[str] | None = None, **how: Any
    ) -> str:
        """Where something is implemented, and how."""
        return await self.operate("find_implementation", feature, codebase_path, **how)

    async def analyze_structure(
        self, component: str | None = None, codebase_path: str | os.PathLike[str] | None = None, **how: Any
    ) -> str:
        """How a component is built; None: the whole codebase."""
        return await self.operate("analyze_structure", component or "", codebase_path, **how)

    async def find_usage(self, symbol: str, codebase_path: str | os.PathLike[str] | None = None, **how: Any) -> str:
        """Where something is used, and what for."""
        return await self.operate("find_usage", symbol, codebase_path, **how)

    async def explain_flow(
        self, description: str, codebase_path: str | os.PathLike[str] | None = None, **how: Any
    ) -> str:
        """What happens, step by step."""
        return await self.operate("explain_flow", description, codebase_path, **how)

    async def operate(
        self, operation: Operation, about: str, codebase_path: str | os.PathLike[str] | None = None, **how: Any
    ) -> str:
        """One of the five by its name."""
        return await self.invoke(question(operation, about), **_at(codebase_path), **how)


def question(operation: Operation, about: str) -> str:
    """What is asked: the operation, in words."""
    match operation:
        case "explore":
            return about
        case "find_implementation":
            return f"Find the implementation of: {about}\n\nName the files and lines, and say how it works."
        case "analyze_structure":
            what = about or "the whole codebase"
            return f"Analyze the structure of: {what}\n\nName its parts, what each is for, and on what it depends."
        case "find_usage":
            return f"Find all usages of: {about}\n\nName the files and lines, and say what each use is for."
        case "explain_flow":
            return f"Explain the flow of: {about}\n\nStep by step, with the files and lines that do each."


def _at(codebase_path: str | os.PathLike[str] | None) -> dict[str, str]:
    return {} if codebase_path is None else {"codebase_path": str(Path(codebase_path))}


async def explore_codebase(
    question: str,
    codebase_path: str | os.PathLike[str] | None = None,
    cli_type: CLIType | str = CLIType.CLAUDE,
    model: str | None = None,
    session_id: str | None = None,
) -> str:
    """Ask one question about a codebase, of a history that ends with the answer."""
    config = ExploreAgentConfig(
        cli_type=cast("CLIType", cli_type),  # which checks it
        model=model,
        session_id=session_id,
        cwd=None if codebase_path is None else Path(codebase_path),
    )
    with ExploreAgent(config) as agent:
        return await agent.explore(question, codebase_path)
