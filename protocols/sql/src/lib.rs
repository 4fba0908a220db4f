//! SQL lexer and statement classifier: what the proxy must know of a statement.
