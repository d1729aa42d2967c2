-- The identity of this deployment, shared by its replicas. It is stamped on what we make in the cloud,
-- so that two gateways on one account never take each other's sandboxes for their own.
CREATE TABLE deployment (
    singleton  boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    id         text NOT NULL DEFAULT replace(gen_random_uuid()::text, '-', ''),
    created_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO deployment DEFAULT VALUES;
