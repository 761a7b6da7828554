-- The messages that a service will publish. It inserts them in the transaction that changes its data, so that
-- both happen or neither does. The relay publishes a row and then deletes it.
CREATE TABLE outbox (
    seq        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- The message's id. A row that is published twice is recognised by it.
    id         uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    topic      text NOT NULL,
    type       text NOT NULL,
    key        text,
    payload    jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    -- Why the relay cannot publish this row. Set it to NULL to have the relay try again.
    error      text
);

-- The rows that the relay looks for, however many rows with an error there are.
CREATE INDEX outbox_waiting ON outbox (seq) WHERE error IS NULL;
