-- What came of a change: the HTTP status of the answer. NULL while it is under way, and for good if a crash cut it off.

ALTER TABLE audit ADD COLUMN status INTEGER;
-- Before, only what had succeeded was noted.
UPDATE audit SET status = 200;
