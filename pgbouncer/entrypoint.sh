#!/bin/sh
# Fills in the user list from the environment, then starts PgBouncer.
set -eu
umask 077

folder=${PGBOUNCER_FOLDER:-/etc/pgbouncer}
: "${ODOO_DB_PASSWORD:?ODOO_DB_PASSWORD is not set}"
: "${PGBOUNCER_ADMIN_PASSWORD:?PGBOUNCER_ADMIN_PASSWORD is not set}"

# awk reads the passwords from the environment: they show in no process list
awk '
    function quoted(text) { gsub(/"/, "\"\"", text); return text }
    {
        for (i = 1; i <= 2; i++) {
            name = i == 1 ? "ODOO_DB_PASSWORD" : "PGBOUNCER_ADMIN_PASSWORD"
            while ((at = index($0, "@" name "@")) > 0)
                $0 = substr($0, 1, at - 1) quoted(ENVIRON[name]) substr($0, at + length(name) + 2)
        }
        print
    }
' "$folder/userlist.txt.template" >"$folder/userlist.txt"

unset ODOO_DB_PASSWORD PGBOUNCER_ADMIN_PASSWORD
exec "$@"
