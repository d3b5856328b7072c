"""Bugs planted in the SQLite backend, one at a time, each of which the kit must catch.

    python -m tests.storage.planted [NAME...]

Each is text put in the place of other text, in a copy of the package. A text that is no longer there, or stands there
twice, is an error: then the bug must be planted anew. Exit 1 where one is not caught.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.processes import LONG_S, ROOT

KIT = """
from mcp_sessions.storage import SQLiteSessionStorage
from mcp_sessions.testing import StorageKit

class TestSQLite(StorageKit):
    def open(self, folder):
        return SQLiteSessionStorage(folder / "sessions.db")

    def open_quickly(self, folder):
        return SQLiteSessionStorage(folder / "sessions.db", durability="process")
"""
FOUND = re.compile(r"^FAILED \S+::(test_\S+)", re.MULTILINE)
WRITING, LISTING, STORAGE = "sqlite/writing.py", "sqlite/listing.py", "sqlite/storage.py"
STATEMENTS, HEADS, WHOLE = "sqlite/statements.sql", "heads.py", "whole.py"


@dataclass(frozen=True)
class Bug:
    """`test` is one that must catch it."""

    name: str
    file: str
    old: str
    new: str
    test: str


BUGS = (
    # messages
    Bug(
        "a gap in seq",
        WRITING,
        'seq = head["last_seq"] + effect.appended',
        'seq = head["last_seq"] + 2 * effect.appended - 1',
        "test_messages_are_numbered_one_two_three",
    ),
    Bug(
        "seq of a retracted message given again",
        HEADS,
        'new["last_seq"] = head["last_seq"] + effect.appended',
        'new["last_seq"] = head["message_count"] + effect.appended',
        "test_seqs_of_retracted_messages_are_never_given_again",
    ),
    Bug(
        "a repeated message appended again",
        WRITING,
        "            if seq is not None:\n                effect.seqs.append(seq)\n                return\n",
        "            if seq is not None:\n"
        '                message = message.model_copy(update={"message_id": f"{seq}-again"})\n',
        "test_a_repeated_message_is_not_appended_and_its_seq_is_returned",
    ),
    Bug(
        "other content under a known id passed over",
        WRITING,
        "if not message.same_as(message_of(row)):",
        "if message.role != message_of(row).role:",
        "test_an_id_taken_by_another_message_is_a_conflict",
    ),
    Bug(
        "the id of a retracted message free again",
        WRITING,
        'db.execute(SQL["add_retracted"]',
        'db.execute("SELECT ?, ?, ?, ?"',
        "test_a_retracted_message_repeated_stays_away",
    ),
    Bug(
        "more messages than there are",
        STORAGE,
        "len(messages) > want.messages",
        "len(messages) >= want.messages",
        "test_a_read_tells_whether_there_are_more_messages",
    ),
    Bug(
        "messages from the seq itself on",
        STORAGE,
        '("seq", "<", want.before)',
        '("seq", "<=", want.before)',
        "test_messages_before_and_after_a_seq",
    ),
    # keys
    Bug(
        "a version not kept",
        WRITING,
        '        db.execute(SQL["keep_old_key"], (sid, key, version))\n',
        "",
        "test_the_session_as_of_an_older_message_keeps_its_versions",
    ),
    Bug(
        "one version too few kept",
        WRITING,
        "self._limits.key_versions - 1",
        "self._limits.key_versions - 2",
        "test_the_newest_versions_of_a_key_are_kept_and_no_more",
    ),
    Bug(
        "a version that does not grow",
        WRITING,
        'db.execute(SQL["write_key"], (version, text, sid, key))',
        'db.execute(SQL["write_key"], (db.execute(SQL["key"], (sid, key)).fetchone()[0], text, sid, key))',
        "test_a_version_is_the_revision_that_wrote_it",
    ),
    Bug(
        "a removed key still listed",
        STATEMENTS,
        "SELECT key FROM keys WHERE sid = ? AND value IS NOT NULL AND substr",
        "SELECT key FROM keys WHERE sid = ? AND substr",
        "test_a_removed_key_is_gone_from_every_reading",
    ),
    Bug(
        "internal keys listed",
        STATEMENTS,
        "WHERE sid = ? AND value IS NOT NULL AND substr(key, 1, 1) <> '.' ORDER BY key;\n\n-- name: any_keys",
        "WHERE sid = ? AND value IS NOT NULL ORDER BY key;\n\n-- name: any_keys",
        "test_internal_keys_are_shown_only_by_name_or_prefix",
    ),
    Bug(
        "keys by name from the last one itself on",
        STATEMENTS,
        "AND key IS NOT ?2 ",
        "",
        "test_keys_by_name_join_into_all_of_them",
    ),
    Bug(
        "a prefix taken for a pattern",
        STATEMENTS,
        "substr(key, 1, length(?2)) = ?2",
        "key LIKE ?2 || '%'",
        "test_a_prefix_is_compared_to_the_letter",
    ),
    # conditions
    Bug(
        "expected_version 0 accepts a key that exists",
        HEADS,
        "        if expected != actual:\n",
        "        if expected and expected != actual:\n",
        "test_a_key_that_must_not_exist_is_written_once",
    ),
    Bug(
        "a summary passed over without a note",
        WRITING,
        "effect, note or note_on(head, change))",
        "effect, note)",
        "test_a_summary_that_is_not_taken_is_noted_in_the_answer_and_the_record",
    ),
    Bug(
        "metadata not removed",
        HEADS,
        "if name not in removed}",
        "if name}",
        "test_custom_metadata_is_removed_name_by_name_before_any_is_set",
    ),
    Bug(
        "purpose and summary not cleared",
        HEADS,
        "for name in alter.clear:",
        "for name in ():",
        "test_purpose_and_summary_are_cleared_before_any_is_set",
    ),
    Bug(
        "expected_last_seq passed over",
        HEADS,
        '("last_seq", change.expected_last_seq)',
        '("last_seq", None)',
        "test_a_refused_commit_leaves_no_trace",
    ),
    Bug(
        "an ended session changes",
        HEADS,
        'ended = change.active and head["status"] is not',
        'ended = change.only_alters() and change.active and head["status"] is not',
        "test_an_ended_session_does_not_change",
    ),
    Bug(
        "a refused part leaves the others in place",
        WRITING,
        "            self._apply(db, self._head(db, other_id), other)\n        return committed\n",
        "            try:\n                self._apply(db, self._head(db, other_id), other)\n"
        "            except ValueError:\n                pass\n        return committed\n",
        "test_a_refused_part_takes_the_whole_commit_with_it",
    ),
    Bug(
        "a refused commit kept in part",
        "sqlite/writer.py",
        'connection.execute("ROLLBACK")',
        'connection.execute("COMMIT")',
        "test_a_refused_part_takes_the_whole_commit_with_it",
    ),
    Bug(
        "a refused commit kept among others",
        "sqlite/writer.py",
        'connection.execute("ROLLBACK TO job")',
        "pass",
        "test_what_is_refused_among_others_leaves_no_trace",
    ),
    # heads
    Bug(
        "revision raised by records",
        HEADS,
        '    if state:\n        new["revision"]',
        '    if state or worked:\n        new["revision"]',
        "test_a_change_without_state_leaves_the_revision",
    ),
    Bug(
        "updated_at goes back",
        HEADS,
        'new["updated_at"] = max(head["updated_at"], change.at)',
        'new["updated_at"] = change.at',
        "test_updated_at_moves_with_the_newest_change_and_never_goes_back",
    ),
    Bug(
        "custom metadata replaced",
        HEADS,
        'new["custom_metadata"] = {**kept, **(alter.metadata or {})}',
        'new["custom_metadata"] = {**(alter.metadata or {})}',
        "test_custom_metadata_merges_name_by_name",
    ),
    # records
    Bug(
        "a record without its state",
        WRITING,
        "self._write_keys(db, sid, change, revision, effect)\n        for record",
        "self._write_keys(db, sid, change, revision, effect) if not change.records else None\n        for record",
        "test_state_and_record_are_one_commit",
    ),
    Bug(
        "usage of an attempt counted twice",
        HEADS,
        "_contribution(before if here else None)",
        "_contribution(None)",
        "test_a_failed_call_is_tried_again_as_the_next_attempt",
    ),
    Bug(
        "attempts not counted",
        HEADS,
        "elif existing.status is InvocationStatus.OK or record.attempt != existing.attempt + 1:",
        "elif existing.status is InvocationStatus.OK:",
        "test_an_attempt_that_is_not_the_next_one_is_told_what_is_recorded",
    ),
    Bug(
        "a late finish accepted",
        HEADS,
        "elif record.owner is not None and not begins and record.attempt == existing.attempt:",
        "elif record.owner is not None and record.owner == existing.owner:\n        return\n    elif False:",
        "test_the_late_finish_of_an_interrupted_call_is_refused",
    ),
    Bug(
        "a running call counted",
        HEADS,
        "if record is None or record.status is InvocationStatus.RUNNING or record.kind",
        "if record is None or record.kind",
        "test_a_running_call_is_not_counted_until_it_is_finished",
    ),
    Bug(
        "a call of a user not known across sessions",
        WRITING,
        '        if record.scope == "user":\n            for',
        '        if record.scope == "user" and sid is None:\n            for',
        "test_an_id_of_a_user_is_unique_across_sessions",
    ),
    Bug(
        "numbers of the commit not joined",
        HEADS,
        "for path in record.fills.values() if record.fills else ():",
        "for path in ():",
        "test_numbers_that_only_the_commit_knows_are_joined_into_the_result",
    ),
    Bug(
        "our own calls read as work",
        STORAGE,
        """else "r.kind = 'work'\"""",
        """else "r.kind <> 'usage'\"""",
        "test_the_newest_calls_of_work_are_read_with_the_session",
    ),
    # owners
    Bug(
        "owner not checked on read",
        STORAGE,
        "if row is None or (want.as_user is not None and row[2] != want.as_user):",
        "if row is None:",
        "test_the_session_of_someone_else_is_not_found",
    ),
    Bug(
        "owner not checked on commit",
        HEADS,
        'if change.as_user is not None and head["user_id"] != change.as_user:',
        'if change.as_user is not None and head["user_id"] not in (None, change.as_user):',
        "test_the_session_of_someone_else_is_not_found",
    ),
    Bug(
        "owner not checked on delete",
        WRITING,
        "        check(session_id, head, change, lambda key: self._version(db, head.sid, key))\n",
        "",
        "test_the_session_of_someone_else_is_not_found",
    ),
    Bug(
        "owner not checked on fork",
        WRITING,
        'if change.as_user is not None and parent["user_id"] != change.as_user:',
        "if change.as_user is not None and not parent:",
        "test_only_its_owner_forks_a_session",
    ),
    Bug(
        "owner not checked on saving a copy",
        WHOLE,
        'session.pending().model_copy(update={"as_user": as_user})',
        "session.pending()",
        "test_the_session_of_someone_else_is_not_found",
    ),
    Bug(
        "a session created for another user",
        WHOLE,
        "if as_user not in (None, session.metadata.user_id):",
        "if as_user in ():",
        "test_the_session_of_someone_else_is_not_found",
    ),
    Bug(
        "owner not checked on looking into a listed session",
        WHOLE,
        "self.load_session(metadata.session_id, as_user=as_user)",
        "self.load_session(metadata.session_id)",
        "test_a_listed_session_that_is_now_someone_elses_is_gone",
    ),
    Bug(
        "owner not checked in listings, search and totals",
        LISTING,
        '("as_user", lambda user: ("s.user_id = ?", [user]))',
        '("as_user", lambda user: ("? <> 0", [user]))',
        "test_every_listing_shows_ones_own_alone",
    ),
    Bug(
        "owner not checked in records",
        LISTING,
        'clauses.append((f"{owner} = ?", [query.as_user]))',
        'clauses.append((f"ifnull({owner}, ?1) <> 0", [query.as_user]))',
        "test_every_listing_shows_ones_own_alone",
    ),
    Bug(
        "a dead owner taken for alive",
        STORAGE,
        "if not lock.path.is_file():\n            return False\n",
        "if not lock.path.is_file():\n            return True\n",
        "test_an_owner_lives_as_long_as_its_handle",
    ),
    Bug(
        "tokens without a call left out of what is counted",
        LISTING,
        "\"r.kind <> 'session'\" if counted",
        "\"r.kind = 'work'\" if counted",
        "test_all_that_is_counted_is_listed_for_who_asks",
    ),
    # listings
    Bug(
        "limit before sort",
        LISTING,
        "FROM sessions s {text} {order})",
        "FROM sessions s {text} LIMIT {query.limit + 1})",
        "test_the_limit_cuts_what_is_filtered_and_sorted",
    ),
    Bug(
        "tie-break missing",
        LISTING,
        "ORDER BY {column} {way}, s.session_id {way} LIMIT",
        "ORDER BY {column} {way} LIMIT",
        "test_ties_are_broken_by_the_id",
    ),
    Bug(
        "tag match inverted",
        LISTING,
        '    if query.match == "any":\n        return [(probe',
        '    if query.match == "all":\n        return [(probe',
        "test_a_filter_lets_through_what_it_says",
    ),
    Bug(
        "tags not moved with their session",
        WRITING,
        'db.executemany(SQL["drop_tag"], [(tag, head.sid) for tag in old - now])',
        "pass",
        "test_an_altered_session_is_found_by_what_it_is_now",
    ),
    Bug(
        "text filter looks at what a session was",
        WRITING,
        'if "purpose" in new or "tags" in new:',
        'if "status" in new:',
        "test_an_altered_session_is_found_by_what_it_is_now",
    ),
    Bug(
        "a page that begins with the last row of the one before",
        LISTING,
        '(f"({column}, s.session_id) {compare} (?, ?)", after)',
        '(f"({column}, s.session_id) {compare}= (?, ?)", after)',
        "test_pages_join_into_the_whole_listing",
    ),
    Bug(
        "cursor not bound to its query",
        "cursors.py",
        "if digest != _digest(question):",
        "if len(digest) != 12:",
        "test_a_cursor_belongs_to_its_query",
    ),
    Bug(
        "a session by what its id is not before",
        LISTING,
        'return prefix, prefix + "\\x7f"',
        'return prefix, "\\x7f"',
        "test_a_session_is_found_by_the_beginning_of_its_id",
    ),
    Bug(
        "the least cost left out",
        LISTING,
        "s.estimated_cost >= ?",
        "s.estimated_cost > ?",
        "test_a_filter_lets_through_what_it_says",
    ),
    # search
    Bug(
        "forgotten search row",
        STATEMENTS,
        "SELECT id, seq, content FROM messages WHERE sid = ? AND seq > ? AND",
        "SELECT id, seq, content FROM messages WHERE sid = ? AND seq > ? + 1 AND",
        "test_what_is_committed_is_found_at_once",
    ),
    Bug(
        "only what was indexed in idle moments is found",
        STORAGE,
        "return Page(items=[])\n        refused = self._index()",
        "return Page(items=[])\n        refused = None",
        "test_what_is_committed_is_found_at_once",
    ),
    Bug(
        "a retracted message left in the index",
        WRITING,
        "scope if message.seq <= head.indexed else None",
        "None",
        "test_what_was_retracted_stands_on_no_disk",
    ),
    Bug(
        "any word instead of all",
        STORAGE,
        '" AND ".join(f\'"{word_token(word)}"\'',
        '" OR ".join(f\'"{word_token(word)}"\'',
        "test_all_words_must_stand_in_one_message_in_any_order",
    ),
    Bug(
        "case not folded",
        "words.py",
        "return text.lower()",
        "return text",
        "test_words_are_found_whatever_their_case_and_accents",
    ),
    Bug(
        "snippet unbounded",
        "words.py",
        "if len(content) <= SNIPPET_CHARS:",
        "if len(content) <= SNIPPET_CHARS * SNIPPET_CHARS:",
        "test_a_snippet_is_short_and_shows_the_word",
    ),
    # totals
    Bug(
        "usage without a call summed under a tool",
        LISTING,
        "kinds = \"('work')\" if group_by == \"tool\" else \"('work', 'usage')\"",
        "kinds = \"('work', 'usage')\"",
        "test_groups_of_records_sum_their_records",
    ),
    Bug(
        "running calls summed",
        LISTING,
        "AND r.status <> 'running'\"",
        '"',
        "test_groups_come_by_name_with_their_sums",
    ),
    # changes
    Bug(
        "a stamp that knows the changes of its own connection alone",
        STORAGE,
        'return db, db.pragma("data_version")',
        "return db, db.total_changes()",
        "test_the_stamp_differs_after_every_change_by_whichever_handle",
    ),
    Bug(
        "a new session that comes on a later page taken for one that was there",
        STORAGE,
        'pack("changes", [page[-1][0], known] if',
        'pack("changes", [page[-1][0], now[1]] if',
        "test_a_session_made_since_the_position_is_so_on_whatever_page_it_comes",
    ),
    Bug(
        "position not moved by a commit",
        WRITING,
        '            if "revision" in new:\n                columns',
        "            if not new:\n                columns",
        "test_each_changed_session_comes_once_with_its_revision_now",
    ),
    Bug(
        "deletion not in the feed",
        WRITING,
        '        db.execute(SQL["add_deleted"], (position, session_id))\n',
        "",
        "test_a_deleted_session_is_a_change_without_a_revision",
    ),
    Bug(
        "a recreated session still deleted in the feed",
        STATEMENTS,
        "AND NOT EXISTS (SELECT 1 FROM sessions s WHERE s.session_id = d.session_id)\n",
        "",
        "test_a_deleted_session_is_a_change_without_a_revision",
    ),
    # forks
    Bug(
        "a fork shares later keys",
        WRITING,
        "if number <= as_of]",
        "if number <= as_of + 1]",
        "test_a_fork_has_messages_and_keys_as_of_a_seq",
    ),
    Bug(
        "a fork without a word about lost versions",
        WRITING,
        '            db.execute(SQL["mark_pruned"], (sid, key))\n',
        "            pass\n",
        "test_the_newest_versions_of_a_key_are_kept_and_no_more",
    ),
    Bug(
        "a restored session begins its records anew",
        WRITING,
        "for record in reversed(view.records):",
        "for record in view.records:",
        "test_invocations_of_one_moment_stay_in_order",
    ),
    # deletion
    Bug(
        "lost cascade: records",
        WRITING,
        '        db.executemany(SQL["drop_record"], records)\n',
        "        records = []\n",
        "test_a_session_of_many_rows_is_deleted_whole",
    ),
    Bug(
        "lost cascade: old versions of keys",
        WRITING,
        '("purge_keys", "purge_old_keys", ',
        '("purge_keys", ',
        "test_what_was_deleted_stands_on_no_disk",
    ),
    Bug(
        "lost cascade: tags",
        WRITING,
        '            db.execute(SQL["drop_tag"], (tag, head.sid))\n        db',
        "            pass\n        db",
        "test_a_deleted_session_that_search_had_indexed_is_gone_too",
    ),
    Bug(
        "secure delete off",
        "sqlite/connecting.py",
        "PRAGMA secure_delete=ON",
        "PRAGMA secure_delete=OFF",
        "test_what_was_deleted_stands_on_no_disk",
    ),
    Bug(
        "the parts of a deletion dropped",
        WRITING,
        "        self._apply_without_session(db, change)\n        position",
        '        self._apply_without_session(db, change.model_copy(update={"also": ()}))\n        position',
        "test_a_deletion_does_its_parts",
    ),
)
QUICK = (
    "limit before sort",
    "cursor not bound to its query",
    "owner not checked on delete",
    "a late finish accepted",
    "forgotten search row",
    "lost cascade: old versions of keys",
)


def wrong(bug: Bug) -> str:
    """The text of the bug's file with the bug. Raises ValueError where it is stale."""
    text = (ROOT / "mcp_sessions" / "storage" / bug.file).read_text(encoding="utf-8")
    if text.count(bug.old) != 1:
        raise ValueError(f"'{bug.name}' is stale: {bug.file} has {text.count(bug.old)} times\n{bug.old}")
    return text.replace(bug.old, bug.new)


def planted(bug: Bug, folder: Path) -> Path:
    """A copy of the package with the bug, and beside it a test by the kit. Raises ValueError where it is stale."""
    file = folder / "mcp_sessions" / "storage" / bug.file
    # With its bytecode, but none that is being written, nor of that file: Python knows a text by its second and length.
    left_out = shutil.ignore_patterns("*.pyc.*", f"{file.stem}.*.pyc")
    shutil.copytree(ROOT / "mcp_sessions", folder / "mcp_sessions", ignore=left_out)
    file.write_text(wrong(bug), encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    test = folder / "test_planted.py"
    test.write_text(KIT, encoding="utf-8")
    return test


def caught(bug: Bug, *, by: str | None = None) -> str | None:
    """The first test of the kit that fails with the bug, of those named `by` where that is given."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        test = planted(bug, folder)
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--tb=no", str(test)]
        command += ["-k", by] if by is not None else []
        done = subprocess.run(
            command,
            cwd=folder,
            env=_environment(folder),
            capture_output=True,
            encoding="utf-8",
            timeout=LONG_S,
            check=False,
        )
    if done.returncode not in (0, 1):
        raise RuntimeError(f"'{bug.name}' keeps the kit from running:\n{done.stdout}{done.stderr}")
    found = FOUND.search(done.stdout)
    return found.group(1) if found is not None else None


def _environment(folder: Path) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")}  # nobody measures a copy
    return {**inherited, "PYTHONPATH": str(folder), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # the kit needs none


def main(names: Iterable[str]) -> int:
    """Plant the bugs named, or all; tell of each which test caught it."""
    chosen = [bug for bug in BUGS if bug.name in set(names)] or list(BUGS)
    missed = 0
    for bug in chosen:
        by = caught(bug)
        missed += by is None
        print(f"{'caught' if by else 'MISSED'}  {bug.name}: {by or 'no test failed'}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} caught")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
