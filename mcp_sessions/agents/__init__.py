"""Agents: they ask programs and models, and their history lives in sessions."""

from .agent import SpecializedAgent
from .config import AgentConfig, CLIType
from .decompose import DecomposeAgent, Decomposition, Subtopic
from .executors import executor_for
from .executors.base import AgentTool, Answer, Executor
from .executors.scripted import Scripted
from .explore import ExploreAgent, ExploreAgentConfig, explore_codebase

__all__ = [
    "AgentConfig",
    "AgentTool",
    "Answer",
    "CLIType",
    "DecomposeAgent",
    "Decomposition",
    "Executor",
    "ExploreAgent",
    "ExploreAgentConfig",
    "Scripted",
    "SpecializedAgent",
    "Subtopic",
    "executor_for",
    "explore_codebase",
]
