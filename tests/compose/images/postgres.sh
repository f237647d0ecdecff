#!/bin/sh
# The stand-in for the image postgres: from an empty PGDATA it makes a server with POSTGRES_USER and
# POSTGRES_PASSWORD, runs /docker-entrypoint-initdb.d while that answers on its socket alone, then
# serves as user postgres.
set -eu
umask 077
[ "${1:-}" = postgres ] || exec "$@"

if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA"
    chown -R postgres: "$PGDATA"
    install -d -m 2777 -o postgres -g postgres /var/run/postgresql
    exec gosu postgres "$0" "$@"
fi

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    : "${POSTGRES_PASSWORD:?POSTGRES_PASSWORD is not set}"
    user=${POSTGRES_USER:-postgres}
    # by a file: the password shows in no process list
    printf '%s\n' "$POSTGRES_PASSWORD" >"$PGDATA/../.password"
    initdb --username="$user" --pwfile="$PGDATA/../.password" --auth-local=trust --auth-host=trust >/dev/null
    rm "$PGDATA/../.password"
    printf 'host all all all scram-sha-256\n' >>"$PGDATA/pg_hba.conf"
    pg_ctl -w start -o "-c listen_addresses=''" >/dev/null
    for file in /docker-entrypoint-initdb.d/*; do
        case $file in
            *.sh) sh "$file" ;;
            *.sql) psql -v ON_ERROR_STOP=1 --no-psqlrc --username "$user" -f "$file" ;;
        esac
    done
    pg_ctl -m fast -w stop >/dev/null
fi
unset POSTGRES_PASSWORD
exec "$@" -c listen_addresses='*'
