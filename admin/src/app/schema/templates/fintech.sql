CREATE TABLE users (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    email TEXT NOT NULL CHECK (email LIKE '%_@_%'),
    full_name TEXT NOT NULL CHECK (full_name <> ''),
    date_of_birth DATE CHECK (date_of_birth > DATE '1900-01-01'),
    country CHAR(2) NOT NULL CHECK (country ~ '^[A-Z]{2}$'),
    kyc_status TEXT NOT NULL DEFAULT 'pending' CHECK (kyc_status IN ('pending', 'verified', 'rejected')),
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now()
);

CREATE UNIQUE INDEX users_email_key ON users (lower(email));

CREATE INDEX users_kyc_pending_idx ON users (created_at) WHERE kyc_status = 'pending';

CREATE TABLE accounts (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id BIGINT NOT NULL REFERENCES users (id) ON DELETE RESTRICT,
    number TEXT NOT NULL UNIQUE CHECK (number <> ''),
    kind TEXT NOT NULL CHECK (kind IN ('checking', 'savings', 'wallet', 'credit')),
    currency CHAR(3) NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    balance NUMERIC(20, 4) NOT NULL DEFAULT 0,
    credit_limit NUMERIC(20, 4) NOT NULL DEFAULT 0 CHECK (credit_limit >= 0),
    status TEXT NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'frozen', 'closed')),
    opened_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    closed_at TIMESTAMPTZ,
    UNIQUE (id, currency),
    CHECK (balance >= -credit_limit),
    CHECK ((status = 'closed') = (closed_at IS NOT NULL))
);

CREATE INDEX accounts_user_id_idx ON accounts (user_id);

CREATE TABLE transactions (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    idempotency_key TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('transfer', 'deposit', 'withdrawal', 'payment', 'fee', 'reversal')),
    status TEXT NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'posted', 'failed', 'reversed')),
    currency CHAR(3) NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    amount NUMERIC(20, 4) NOT NULL CHECK (amount > 0),
    description TEXT NOT NULL DEFAULT '',
    reverses_id BIGINT UNIQUE REFERENCES transactions (id) ON DELETE RESTRICT,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    posted_at TIMESTAMPTZ,
    UNIQUE (id, currency),
    CHECK ((kind = 'reversal') = (reverses_id IS NOT NULL)),
    CHECK (status NOT IN ('posted', 'reversed') OR posted_at IS NOT NULL)
);

CREATE INDEX transactions_created_at_idx ON transactions (created_at DESC);

CREATE INDEX transactions_pending_idx ON transactions (created_at) WHERE status = 'pending';

CREATE TABLE ledger_entries (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    transaction_id BIGINT NOT NULL,
    account_id BIGINT NOT NULL,
    currency CHAR(3) NOT NULL,
    amount NUMERIC(20, 4) NOT NULL CHECK (amount <> 0),
    balance_after NUMERIC(20, 4) NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    FOREIGN KEY (transaction_id, currency) REFERENCES transactions (id, currency) ON DELETE RESTRICT,
    FOREIGN KEY (account_id, currency) REFERENCES accounts (id, currency) ON DELETE RESTRICT
);

CREATE INDEX ledger_entries_transaction_id_idx ON ledger_entries (transaction_id);

CREATE INDEX ledger_entries_account_id_idx ON ledger_entries (account_id, created_at DESC);

CREATE TABLE cards (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id BIGINT NOT NULL REFERENCES accounts (id) ON DELETE RESTRICT,
    token TEXT NOT NULL UNIQUE,
    last_four CHAR(4) NOT NULL CHECK (last_four ~ '^[0-9]{4}$'),
    expires_on DATE NOT NULL,
    status TEXT NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'blocked', 'expired')),
    daily_limit NUMERIC(20, 4) CHECK (daily_limit > 0),
    created_at TIMESTAMPTZ NOT NULL DEFAULT now()
);

CREATE INDEX cards_account_id_idx ON cards (account_id);

CREATE TABLE beneficiaries (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id BIGINT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name TEXT NOT NULL CHECK (name <> ''),
    account_number TEXT NOT NULL,
    bank_code TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    UNIQUE (user_id, bank_code, account_number)
);

CREATE TABLE exchange_rates (
    base_currency CHAR(3) NOT NULL CHECK (base_currency ~ '^[A-Z]{3}$'),
    quote_currency CHAR(3) NOT NULL CHECK (quote_currency ~ '^[A-Z]{3}$'),
    valid_from TIMESTAMPTZ NOT NULL,
    rate NUMERIC(20, 10) NOT NULL CHECK (rate > 0),
    PRIMARY KEY (base_currency, quote_currency, valid_from),
    CHECK (base_currency <> quote_currency)
);
