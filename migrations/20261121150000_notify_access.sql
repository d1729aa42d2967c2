-- Says on a channel that a credential, or what it may do, was changed: replicas forget what they believed, and end streams
-- that may go on no longer. Triggers, so that it holds for whoever changes it, and is said when it is committed.
CREATE FUNCTION notify_access() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('ags_gateway_access', TG_TABLE_NAME);
    RETURN NULL;
END $$;

CREATE TRIGGER api_keys_notify AFTER UPDATE ON api_keys FOR EACH ROW
    WHEN ((OLD.revoked_at, OLD.expires_at, OLD.scopes) IS DISTINCT FROM (NEW.revoked_at, NEW.expires_at, NEW.scopes))
    EXECUTE FUNCTION notify_access();
CREATE TRIGGER api_key_secrets_notify AFTER UPDATE ON api_key_secrets FOR EACH ROW
    WHEN (OLD.expires_at IS DISTINCT FROM NEW.expires_at)
    EXECUTE FUNCTION notify_access();
CREATE TRIGGER teams_notify AFTER UPDATE ON teams FOR EACH ROW EXECUTE FUNCTION notify_access();
CREATE TRIGGER previews_notify AFTER UPDATE ON previews FOR EACH ROW
    WHEN (OLD.revoked_at IS DISTINCT FROM NEW.revoked_at)
    EXECUTE FUNCTION notify_access();
