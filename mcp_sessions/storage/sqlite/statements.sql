-- Every fixed statement, by name. Listings are composed in listing.py.

-- name: head
SELECT * FROM sessions WHERE session_id = ?;

-- name: head_by_sid
SELECT * FROM sessions WHERE sid = ?;

-- name: head_and_key
SELECT s.*, k.version, k.value FROM sessions s LEFT JOIN keys k ON k.sid = s.sid AND k.key = ?2
WHERE s.session_id = ?1;

-- name: add_session
INSERT INTO sessions (
    sid, session_id, user_id, status, created_at, updated_at, ended_at, purpose, summary, parent_id, tags,
    custom_metadata, revision, last_seq, message_count, total_invocations, failed_invocations, total_duration_ms,
    tools_used, token_usage, estimated_cost, unpriced_invocations, folded, position
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: position
SELECT max(
    ifnull((SELECT max(position) FROM sessions), 0), ifnull((SELECT max(position) FROM deleted), 0)
);

-- name: taken
SELECT 1 FROM sessions WHERE sid = ?1 OR position = ?1 UNION ALL SELECT 1 FROM purging WHERE sid = ?1;

-- name: add_tag
INSERT INTO tags (tag, sid) VALUES (?, ?);

-- name: drop_tag
DELETE FROM tags WHERE tag = ? AND sid = ?;

-- name: add_message
INSERT INTO messages (id, sid, seq, message_id, given, role, content, timestamp, revision, more) VALUES (
    ifnull((SELECT max(id) + 1 FROM messages WHERE id >= ?1 AND id < ?1 + 4096), ?1), ?, ?, ?, ?, ?, ?, ?, ?, ?
);

-- name: message_by_given_id
SELECT seq, message_id, role, content, timestamp, more FROM messages WHERE sid = ? AND message_id = ? AND given;

-- name: message_by_generated_id
SELECT seq, message_id, role, content, timestamp, more FROM messages WHERE sid = ? AND message_id = ?;

-- name: retracted_id
SELECT seq, fingerprint FROM retracted WHERE sid = ? AND message_id = ?;

-- name: messages_between
SELECT id, seq, message_id, role, content, timestamp, more FROM messages WHERE sid = ? AND seq BETWEEN ? AND ?;

-- name: add_retracted
INSERT INTO retracted (sid, message_id, seq, fingerprint) VALUES (?, ?, ?, ?);

-- name: all_retracted
SELECT seq, message_id, fingerprint FROM retracted WHERE sid = ?;

-- name: forget_retracted
DELETE FROM retracted WHERE sid = ? AND message_id = ?;

-- name: drop_message
DELETE FROM messages WHERE id = ?;

-- name: revision_at
SELECT revision FROM messages WHERE sid = ? AND seq <= ? ORDER BY seq DESC LIMIT 1;

-- name: messages_upto
SELECT seq, message_id, role, content, timestamp, more FROM messages WHERE sid = ? AND seq <= ? ORDER BY seq;

-- name: messages_after
SELECT seq, message_id, role, content, timestamp, more FROM messages WHERE sid = ? AND seq > ? ORDER BY seq;

-- name: key
SELECT version, value FROM keys WHERE sid = ? AND key = ?;

-- name: live_key
SELECT key, version, value FROM keys WHERE sid = ? AND key = ? AND value IS NOT NULL;

-- name: live_keys
SELECT key, version, value FROM keys
WHERE sid = ?1 AND key >= ?2 AND substr(key, 1, length(?2)) = ?2 AND value IS NOT NULL ORDER BY key;

-- name: visible_keys
SELECT key, version, value FROM keys
WHERE sid = ? AND value IS NOT NULL AND substr(key, 1, 1) <> '.' ORDER BY key;

-- name: any_keys
SELECT key, version, value FROM keys
WHERE sid = ?1 AND key >= ifnull(?2, '') AND key IS NOT ?2 AND value IS NOT NULL ORDER BY key LIMIT ?3;

-- name: key_names
SELECT key FROM keys WHERE sid = ? AND value IS NOT NULL AND substr(key, 1, 1) <> '.' ORDER BY key;

-- name: add_key
INSERT INTO keys (sid, key, version, value) VALUES (?, ?, ?, ?);

-- name: keep_old_key
INSERT OR REPLACE INTO old_keys (sid, key, version, value)
SELECT sid, key, version, value FROM keys WHERE sid = ?1 AND key = ?2 AND version <> ?3;

-- name: write_key
UPDATE keys SET version = ?, value = ? WHERE sid = ? AND key = ?;

-- name: prune_key
DELETE FROM old_keys WHERE sid = ?1 AND key = ?2 AND version <= (
    SELECT version FROM old_keys WHERE sid = ?1 AND key = ?2 ORDER BY version DESC LIMIT 1 OFFSET ?3
);

-- name: mark_pruned
UPDATE keys SET pruned = 1 WHERE sid = ? AND key = ?;

-- name: keys_with_versions
SELECT key, pruned, version, value FROM keys WHERE sid = ? ORDER BY key;

-- name: old_versions
SELECT version, value FROM old_keys WHERE sid = ? AND key = ? ORDER BY version;

-- name: add_record
INSERT INTO records (
    id, sid, user_id, invocation_id, scope, tool_name, kind, status, started_at, duration_ms, model, token_usage,
    cost, unpriced, revision, numbers, body
) VALUES (
    ifnull((SELECT max(id) + 1 FROM records WHERE id >= ?1 AND id < ?1 + 4096), ?1), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,
    ?, ?, ?, ?, ?
);

-- name: record_of_session
SELECT r.id, r.invocation_id, r.user_id, r.tool_name, r.kind, r.status, r.started_at, r.duration_ms, r.model,
    r.token_usage, r.scope, r.body, s.session_id, r.revision, r.numbers
FROM records r LEFT JOIN sessions s USING (sid)
WHERE r.sid = ? AND r.invocation_id = ? AND r.scope IS NOT NULL;

-- name: record_of_user
SELECT r.id, r.invocation_id, r.user_id, r.tool_name, r.kind, r.status, r.started_at, r.duration_ms, r.model,
    r.token_usage, r.scope, r.body, s.session_id, r.revision, r.numbers,
    r.sid IS NOT NULL AND s.sid IS NULL
FROM records r LEFT JOIN sessions s USING (sid)
WHERE ifnull(r.user_id, '') = ifnull(?, '') AND r.invocation_id = ? AND r.scope = 'user';

-- name: drop_record
DELETE FROM records WHERE id = ?;

-- name: drop_session
DELETE FROM sessions WHERE sid = ?;

-- name: add_deleted
INSERT INTO deleted (position, session_id) VALUES (?, ?);

-- name: forget_deleted
DELETE FROM deleted WHERE position = ?;

-- name: prune_deleted
DELETE FROM deleted WHERE position <= (SELECT position FROM deleted ORDER BY position DESC LIMIT 1 OFFSET ?);

-- name: add_purging
INSERT INTO purging (sid, user_id, indexed) VALUES (?, ?, ?);

-- name: purging
SELECT sid, user_id, indexed FROM purging ORDER BY sid LIMIT 1;

-- name: done_purging
DELETE FROM purging WHERE sid = ?;

-- name: some_messages
SELECT id, seq, content FROM messages WHERE sid = ? LIMIT ?;

-- name: some_records
SELECT id FROM records WHERE sid = ? LIMIT ?;

-- name: purge_keys
DELETE FROM keys WHERE sid = ?;

-- name: purge_old_keys
DELETE FROM old_keys WHERE sid = ?;

-- name: purge_retracted
DELETE FROM retracted WHERE sid = ?;

-- name: unindexed
SELECT sid, user_id, indexed, last_seq FROM sessions WHERE last_seq > indexed AND sid >= ? ORDER BY sid LIMIT 1;

-- name: some_unindexed
SELECT id, seq, content FROM messages WHERE sid = ? AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?;

-- name: all_unindexed
SELECT m.id, m.content FROM sessions s JOIN messages m ON m.sid = s.sid AND m.seq > s.indexed
WHERE s.last_seq > s.indexed LIMIT ?;

-- name: indexed
UPDATE sessions SET indexed = ? WHERE sid = ?;

-- name: index_words
INSERT INTO search (rowid, words, scope) VALUES (?, ?, ?);

-- name: forget_words
INSERT INTO search (search, rowid, words, scope) VALUES ('delete', ?, ?, ?);

-- name: sid
SELECT sid FROM sessions WHERE session_id = ?;

-- name: changed_since
SELECT position, session_id, revision, sid > ? FROM sessions WHERE position > ? ORDER BY position LIMIT ?;

-- name: deleted_since
SELECT position, session_id, NULL, 0 FROM deleted d WHERE position > ?
AND NOT EXISTS (SELECT 1 FROM sessions s WHERE s.session_id = d.session_id)
AND NOT EXISTS (SELECT 1 FROM deleted e WHERE e.session_id = d.session_id AND e.position > d.position)
ORDER BY position LIMIT ?;
