"""An agent that explores a codebase, and what its session holds afterwards: what was said, and what it cost.

Run it: python examples/explore.py
"""

from collections.abc import Sequence

import anyio

from mcp_sessions import get_session_manager
from mcp_sessions.agents import AgentTool, Answer, ExploreAgent, ExploreAgentConfig, Scripted
from mcp_sessions.models import tokens

MODEL = "claude-sonnet-4-5"


def script(prompt: str, _tools: Sequence[AgentTool]) -> Answer:
    """What a model might say; what it said before it knows from the conversation in the prompt alone."""
    if "Store.commit" in prompt:
        return Answer("Once more: retry.py:12, after a lost connection.", MODEL, tokens(9_800, 200))
    return Answer("Store.commit, called at cart.py:41.", MODEL, tokens(9_000, 300), cost=0.0315)


async def main() -> None:
    manager = get_session_manager()
    session_id = manager.create_session(purpose="How orders are stored", tags=["shop"]).metadata.session_id
    executor = Scripted(script)  # executor = "claude" asks Claude Code, as it is installed here
    agent = ExploreAgent(ExploreAgentConfig(executor=executor, session_id=session_id), manager)

    await agent.explore("What stores an order?", codebase_path="shop")
    await agent.explore("Is it called anywhere else?", codebase_path="shop")

    for message in agent.get_session_history():
        print(f"{message['role']}: {message['content']}")

    # Each question is on record. A cost that was not reported is estimated from the tokens.
    for record in reversed(manager.invocations(session_id).items):
        cost = f"{record.cost:.4f} USD, {record.cost_source}"
        print(f"{record.duration_ms:.0f} ms, {record.token_usage['input']} tokens in, {cost}")

    head = manager.metadata(session_id)
    print(f"{session_id}: calls: {head.total_invocations}, cost: {head.estimated_cost:.4f} USD")


if __name__ == "__main__":
    anyio.run(main)
