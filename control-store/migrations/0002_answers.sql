-- Answers to requests with an Idempotency-Key, for when the request comes again.

CREATE TABLE answers (
    id INTEGER PRIMARY KEY,
    scope TEXT NOT NULL, -- who may have it again
    name TEXT NOT NULL, -- the Idempotency-Key
    request BLOB NOT NULL, -- SHA-256 of what was asked
    status INTEGER NOT NULL,
    sealed_body BLOB NOT NULL, -- it may show secrets
    at INTEGER NOT NULL,
    UNIQUE (scope, name)
) STRICT;
CREATE INDEX answers_by_age ON answers (at);
