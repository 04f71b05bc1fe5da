-- Kinds of jobs as code declares them.

-- name: list_kinds
SELECT kind, declaration, redact, hidden, declared_at, declared_by FROM forge_kinds
WHERE :kind IS NULL OR kind = :kind ORDER BY kind

-- name: secretive_kinds
SELECT kind, redact, hidden FROM forge_kinds WHERE redact <> '[]' OR hidden = 1

-- name: insert_kind
INSERT INTO forge_kinds (kind, declaration, redact, hidden, declared_at, declared_by)
VALUES (:kind, :declaration, :redact, :hidden, :now, :host)
ON CONFLICT (kind) DO NOTHING

-- name: update_kind
UPDATE forge_kinds SET declaration = :declaration, redact = :redact, hidden = :hidden, declared_at = :now,
  declared_by = :host
WHERE kind = :kind

-- name: reset_kind
UPDATE forge_kinds SET redact = :redact, hidden = :hidden WHERE kind = :kind
