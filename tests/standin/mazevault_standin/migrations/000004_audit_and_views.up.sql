-- SPDX-FileCopyrightText: 2026 The mazevault.backup authors
-- SPDX-License-Identifier: GPL-3.0-or-later

CREATE TABLE audit_logs (
    id bigserial PRIMARY KEY,
    user_id bigint REFERENCES users (id),
    action varchar(60) NOT NULL,
    entity_type varchar(40) NOT NULL,
    entity_id varchar(40) NOT NULL,
    severity varchar(10) NOT NULL CHECK (severity IN ('info', 'warning', 'critical')),
    -- json, not jsonb: the chain covers the exact text.
    details json NOT NULL,
    created_at timestamptz NOT NULL,
    chain_hash char(64) NOT NULL
);

CREATE INDEX audit_logs_created_at ON audit_logs (created_at);
CREATE INDEX audit_logs_entity ON audit_logs (entity_type, entity_id);

CREATE FUNCTION touch_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END
$$;

CREATE TRIGGER projects_touch BEFORE UPDATE ON projects FOR EACH ROW EXECUTE FUNCTION touch_updated_at();
CREATE TRIGGER users_touch BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION touch_updated_at();
CREATE TRIGGER secrets_touch BEFORE UPDATE ON secrets FOR EACH ROW EXECUTE FUNCTION touch_updated_at();
CREATE TRIGGER certificates_touch BEFORE UPDATE ON certificates FOR EACH ROW EXECUTE FUNCTION touch_updated_at();

CREATE VIEW current_secrets AS
SELECT s.id, s.project_id, p.organisation_id, s.key, s.environment, s.status, s.current_version AS version,
       s.created_at, s.updated_at, v.wrapped_dek, v.ciphertext
FROM secrets s
JOIN projects p ON p.id = s.project_id
LEFT JOIN secret_versions v ON v.secret_id = s.id AND v.version = s.current_version;
