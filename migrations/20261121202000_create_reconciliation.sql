-- Passes of the reconciler: one replica at a time makes one, under a lease, and all of them tell of the last.
CREATE TABLE reconciliation (
    singleton    boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    holder       text,
    held_until   timestamptz,
    -- When the last pass began, and the last one for which every upstream gave a whole list.
    checked_at   timestamptz,
    complete_at  timestamptz,
    orphans      bigint NOT NULL DEFAULT 0,
    missing      bigint NOT NULL DEFAULT 0,
    unowned      bigint NOT NULL DEFAULT 0,
    braked       boolean NOT NULL DEFAULT false
);
INSERT INTO reconciliation DEFAULT VALUES;

-- What carries our stamp in the cloud and has no live row, and since when that has been seen.
CREATE TABLE orphans (
    upstream    text NOT NULL,
    kind        text NOT NULL,
    upstream_id text NOT NULL,
    since       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (upstream, kind, upstream_id)
);

-- Since when the cloud does not list what should be there.
ALTER TABLE tools ADD COLUMN missing_since timestamptz;
