-- The store, version 1. Times are microseconds since 1970 UTC, money is nano-dollars, JSON is text.
-- A row's id in `messages` and `records` is its time in milliseconds * 4096 + a number that tells rows of the same
-- millisecond apart, so that "newest first" is the order of the b-tree, across sessions and for search.

CREATE TABLE sessions (
    sid INTEGER PRIMARY KEY,                -- the position at which it was made: a stale handle reaches no other
    session_id TEXT NOT NULL UNIQUE,
    user_id TEXT,
    status TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    ended_at INTEGER,
    purpose TEXT,
    summary TEXT,
    parent_id TEXT,
    tags TEXT NOT NULL,
    custom_metadata TEXT NOT NULL,
    revision INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    message_count INTEGER NOT NULL,
    total_invocations INTEGER NOT NULL,
    failed_invocations INTEGER NOT NULL,
    total_duration_ms REAL NOT NULL,
    tools_used TEXT NOT NULL,
    token_usage TEXT NOT NULL,
    estimated_cost INTEGER NOT NULL,
    unpriced_invocations INTEGER NOT NULL,
    folded TEXT NOT NULL,                   -- id, purpose and tags, as text filters compare them
    position INTEGER NOT NULL,              -- of the last commit that changed its state, in the whole store
    indexed INTEGER NOT NULL DEFAULT 0      -- up to this seq its messages are in the search index
) STRICT;
CREATE INDEX sessions_unindexed ON sessions (sid) WHERE last_seq > indexed;
CREATE INDEX sessions_by_status ON sessions (status, updated_at);
CREATE INDEX sessions_by_user ON sessions (user_id, status, updated_at) WHERE user_id IS NOT NULL;
CREATE INDEX sessions_by_purpose ON sessions (purpose) WHERE purpose IS NOT NULL;
CREATE UNIQUE INDEX sessions_by_position ON sessions (position);

CREATE TABLE tags (tag TEXT NOT NULL, sid INTEGER NOT NULL, PRIMARY KEY (tag, sid)) STRICT, WITHOUT ROWID;

CREATE TABLE messages (
    id INTEGER PRIMARY KEY,
    sid INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    message_id TEXT NOT NULL,
    given INTEGER NOT NULL,                 -- the caller chose the id; a generated one needs no index
    role TEXT NOT NULL,
    content TEXT NOT NULL,
    timestamp INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    more TEXT                               -- the fields that most messages lack
) STRICT;
CREATE UNIQUE INDEX messages_by_seq ON messages (sid, seq);
CREATE UNIQUE INDEX messages_by_given_id ON messages (sid, message_id) WHERE given;

-- Ids of retracted messages: they stay taken. The fingerprint tells a retry from another message.
CREATE TABLE retracted (
    sid INTEGER NOT NULL, message_id TEXT NOT NULL, seq INTEGER NOT NULL, fingerprint TEXT,
    PRIMARY KEY (sid, message_id)
) STRICT, WITHOUT ROWID;

-- The newest version of each key (value NULL: removed), and the versions before it.
CREATE TABLE keys (
    sid INTEGER NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL, value TEXT,
    pruned INTEGER NOT NULL DEFAULT 0,      -- versions older than those in old_keys were dropped
    PRIMARY KEY (sid, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE old_keys (
    sid INTEGER NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL, value TEXT,
    PRIMARY KEY (sid, key, version)
) STRICT, WITHOUT ROWID;

CREATE TABLE records (
    id INTEGER PRIMARY KEY,
    sid INTEGER,
    user_id TEXT,
    invocation_id TEXT NOT NULL,
    scope TEXT,                             -- the caller chose the id, unique within the session, or the user too
    tool_name TEXT NOT NULL,
    kind TEXT NOT NULL,
    status TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    duration_ms REAL,
    model TEXT,
    token_usage TEXT,
    cost INTEGER,
    unpriced INTEGER NOT NULL,
    revision INTEGER,
    numbers TEXT,                           -- what only the commit knew of the result
    body TEXT NOT NULL                      -- its other fields, as they were staged
) STRICT;
CREATE INDEX records_by_session ON records (sid, id);
CREATE UNIQUE INDEX records_by_given_id ON records (sid, invocation_id) WHERE scope IS NOT NULL;
CREATE UNIQUE INDEX records_by_user ON records (ifnull(user_id, ''), invocation_id) WHERE scope = 'user';
CREATE INDEX records_not_ok ON records (status, id) WHERE status <> 'ok';
CREATE INDEX records_not_ok_by_session ON records (sid, status, id) WHERE status <> 'ok';

-- The words of messages (as storage/words.py cuts them) and whose they are; they get in after their commit.
CREATE VIRTUAL TABLE search USING fts5 (
    words, scope, content = '', detail = 'column', tokenize = "ascii tokenchars '_'"
);
INSERT INTO search (search, rank) VALUES ('secure-delete', 1);

CREATE TABLE deleted (position INTEGER PRIMARY KEY, session_id TEXT NOT NULL) STRICT;
-- Deleted sessions whose rows are still being removed, piece by piece.
CREATE TABLE purging (sid INTEGER PRIMARY KEY, user_id TEXT, indexed INTEGER NOT NULL) STRICT;
