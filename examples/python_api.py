"""An agent that keeps its state in a session: stop it anywhere, run it again, and it goes on from there.

Run it twice: python examples/python_api.py
"""

from mcp_sessions import get_session_manager

manager = get_session_manager()

# Go on where the last run stopped, or begin.
unfinished = manager.query("tag:trip status:active").items
if unfinished:
    session_id = unfinished[0].session_id
else:
    session_id = manager.create_session(purpose="Plan a trip to Kyoto", tags=["trip"]).metadata.session_id

# A message with an id of yours is stored once, however often the script is run.
manager.add_conversation_message(session_id, "user", "Three days in Kyoto, with temples.", message_id="wish")

# A unit of work: what it changes and the record of the call become durable together, or not at all. With an id of
# yours it is done once; the next run gets the recorded result.
with manager.call("find_temples", session_id, {"city": "Kyoto"}, "agent:trip", invocation_id="temples") as call:
    if not call.replayed:
        call.result = ["Kinkaku-ji", "Ginkaku-ji", "Kiyomizu-dera"]
        call.draft.set_value("temples", call.result)
    print("replayed" if call.replayed else "looked up", call.result)

# What a model call cost; estimated from its tokens, and unknown is None.
cost = manager.record_usage(session_id, "claude-sonnet-4-5", 1200, 300, invocation_id="answer")
manager.add_conversation_message(session_id, "assistant", "Day 1: Kinkaku-ji at opening time.", message_id="answer")
print(f"cost: {cost} USD")

for hit in manager.search("kinkaku opening").items:
    print(f"found: message {hit.seq}, {hit.snippet}")

# Try another way from the first message on, and leave this one as it is.
if not unfinished:
    other = manager.fork(session_id, at_seq=1)
    manager.complete_session(other.session_id, "abandoned", summary="A hotel in Osaka would have been cheaper.")
else:
    manager.complete_session(session_id, summary="Three temples, one a day.")

head = manager.metadata(session_id)
print(f"{session_id}: {head.status.value}, messages: {head.message_count}, calls: {head.total_invocations}")
