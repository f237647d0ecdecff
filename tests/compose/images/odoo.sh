#!/bin/sh
# The stand-in for the image odoo: HOST, PORT, USER and PASSWORD become options of the command line.
set -eu
case ${1:-} in
    -- | odoo) shift ;;
    -*) ;;
    *) exec "$@" ;;
esac
exec odoo --db_host "${HOST:-db}" --db_port "${PORT:-5432}" --db_user "${USER:-odoo}" --db_password "${PASSWORD:-odoo}" "$@"
