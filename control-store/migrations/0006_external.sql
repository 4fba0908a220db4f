-- Servers that somebody else runs are known by the name that the configuration gives them, whatever their address.

ALTER TABLE servers ADD COLUMN name TEXT; -- NULL: one that we started
CREATE UNIQUE INDEX server_names ON servers (name);
