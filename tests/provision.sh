# shellcheck shell=sh
# What the commands of ./run need, fetched or made once and kept in the cache folder: Python, Debian
# packages, servers, a browser, a cluster, Odoo, virtual environments. ./run sources this file; it
# sets HERE, say, fail and the choices (SERIES, NEWEST_PYTHON, ODOO_CHECKOUT, POOLER, POOL_MODE, POSTGRESQL)
# that "setup" reads.

if [ -z "${BUS_ALT_CACHE:-}" ]; then
    if [ "$(id -u)" = 0 ]; then
        # PostgreSQL and PgBouncer refuse to run as root: user nobody must reach the files.
        BUS_ALT_CACHE=/var/cache/bus_alt_connection
    else
        BUS_ALT_CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/bus_alt_connection
    fi
fi
export BUS_ALT_CACHE

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# --- Python ---------------------------------------------------------------------

python_fits() {
    "$1" -c "import sys, ensurepip, venv; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, $NEWEST_PYTHON))" 2>/dev/null
}

find_python() {
    for python in ${PYTHON:-python3 /usr/bin/python3 python3.13 python3.12 python3.11 python3.10}; do
        if python_fits "$python"; then command -v "$python"; return; fi
    done
    return 1
}

need_python() {
    if ! find_python >/dev/null; then
        [ -z "${PYTHON:-}" ] || fail "PYTHON=$PYTHON is no Python that fits (3.10 to 3.$NEWEST_PYTHON), or it lacks venv"
        say "installing Python (apt: python3 python3-venv)"
        as_root apt-get update -qq
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
            python3 python3-venv ca-certificates >/dev/null
    fi
    PYTHON=$(find_python) || fail "no Python 3.10 to 3.$NEWEST_PYTHON here; name one with PYTHON=/path/to/python3"
    export PYTHON
}

# --- Debian packages, unpacked into the cache -------------------------------------

# apt-get with lists and archives in the cache folder, which needs no root and changes nothing on the
# machine. AREA is a suite of Debian (use_suite), or "machine" for what the machine's apt knows.
apt_get() { apt_in apt-get "$@" -oDebug::NoLocking=1 -oAPT::Sandbox::User=; }
apt_cache() { apt_in apt-cache "$@"; }

# apt_in PROGRAM AREA…: run apt-get or apt-cache with the lists and archives of this area.
apt_in() {
    program=$1
    area=$BUS_ALT_CACHE/apt/$2
    shift 2
    mkdir -p "$area/lists/partial" "$area/archives/partial" "$area/parts"
    if [ -n "$(ls "$area/parts")" ]; then
        # another suite: what the machine has installed does not count there
        : >"$area/status"
        set -- -oDir::Etc::sourcelist=/dev/null -oDir::Etc::sourceparts="$area/parts" \
            -oDir::State::status="$area/status" "$@"
    fi
    "$program" -qq -oDir::State::Lists="$area/lists" -oDir::Cache="$area" "$@"
}

# unpack_packages AREA FOLDER PACKAGES…: download packages and what they depend on, and unpack them
# into a new folder.
unpack_packages() {
    archives=$BUS_ALT_CACHE/apt/$1/archives
    from=$1 into=$2
    shift 2
    apt_get "$from" install --download-only --reinstall -y --no-install-recommends "$@" >/dev/null
    rm -rf "$into"
    mkdir -p "$into"
    for deb in "$archives"/*.deb; do dpkg-deb -x "$deb" "$into"; done
    rm -f "$archives"/*.deb
}

# postgresql_version AREA: print the major version of PostgreSQL there.
postgresql_version() {
    apt_cache "$1" depends postgresql |
        sed -n 's/^ *Depends: postgresql-\([0-9]*\)$/\1/p' | head -n 1
}

# A Debian mirror for suites that the machine itself does not use.
debian_mirror() {
    if [ -n "${DEBIAN_MIRROR:-}" ]; then echo "$DEBIAN_MIRROR"; return; fi
    # shellcheck disable=SC2016  # apt expands these
    apt_get machine indextargets --format '$(ORIGIN) $(LABEL) $(REPO_URI)' 'Created-By: Packages' |
        awk '$1 == "Debian" && $2 == "Debian" { print $3; exit }' | grep . && return
    # Ubuntu: the package python-apt-common knows Debian's mirror.
    (
        cd "$BUS_ALT_CACHE/apt" && apt_get machine download python-apt-common >&2 &&
        dpkg-deb --fsys-tarfile python-apt-common_*.deb |
            tar -xO ./usr/share/python-apt/templates/Debian.info
    ) | awk '$1 == "BaseURI:" { print $2; exit }' | grep . ||
        fail "no Debian mirror known here; set DEBIAN_MIRROR (Odoo comes from Debian)"
}

debian_keyring() {
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    if [ ! -e "$keyring" ]; then
        keyring=$BUS_ALT_CACHE/apt/keyring/usr/share/keyrings/debian-archive-keyring.gpg
        if [ ! -e "$keyring" ]; then
            (cd "$BUS_ALT_CACHE/apt" && apt_get machine download debian-archive-keyring >&2 &&
                dpkg-deb -x debian-archive-keyring_*.deb keyring)
        fi
    fi
    echo "$keyring"
}

# use_suite SUITE: let apt_get read this suite of Debian.
use_suite() {
    parts=$BUS_ALT_CACHE/apt/$1/parts
    if [ ! -e "$parts/debian.sources" ]; then
        mkdir -p "$parts"
        mirror=$(debian_mirror)
        keyring=$(debian_keyring)
        printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n' \
            "$mirror" "$1" "$keyring" >"$parts/new"
        mv "$parts/new" "$parts/debian.sources"
    fi
    apt_get "$1" update
}

need_servers() {
    SERVERS=$BUS_ALT_CACHE/servers
    if [ ! -e "$SERVERS/.complete-2" ]; then
        say "downloading PostgreSQL and PgBouncer (Debian packages, unpacked into the cache)"
        apt_get machine update || true  # a third-party source may be out of reach
        version=$(postgresql_version machine)
        [ -n "$version" ] || fail "apt knows no package postgresql"
        unpack_packages machine "$SERVERS" "postgresql-$version" "postgresql-client-$version" \
            libpq5 pgbouncer tzdata iproute2
        touch "$SERVERS/.complete-2"
    fi
    need_tools "$SERVERS"
    export BUS_ALT_SERVERS="$SERVERS" BUS_ALT_POSTGRESQL="$SERVERS"
    export BUS_ALT_POOLER="$POOLER" BUS_ALT_POOL_MODE="$POOL_MODE"
    if [ "$POSTGRESQL" = sid ]; then
        need_sid
        need_tools "$BUS_ALT_SID"
        BUS_ALT_POSTGRESQL=$BUS_ALT_SID
    fi
    [ "$POOLER" = pgbouncer ] || need_sid
}

# need_tools ROOT: what the database manager calls, in ROOT/tools.
need_tools() {
    mkdir -p "$1/tools"
    for bin in "$1"/usr/lib/postgresql/*/bin; do
        for tool in pg_dump pg_restore psql; do
            cat >"$1/tools/$tool.new" <<EOF
#!/bin/sh
# Odoo 14.0 hands over a /dev/null that is open for reading only; pg_dump 17 refuses it
[ "\$(readlink /proc/\$\$/fd/1)" != /dev/null ] || exec >/dev/null
# finds the libraries that were unpacked beside it
LD_LIBRARY_PATH=\$(echo $SERVERS/usr/lib/*-linux-gnu* | tr ' ' :)
export LD_LIBRARY_PATH
exec $bin/$tool "\$@"
EOF
            chmod +x "$1/tools/$tool.new"
            mv "$1/tools/$tool.new" "$1/tools/$tool"
        done
    done
}

# The newest PostgreSQL and poolers, with all that they need, down to the C library.
need_sid() {
    BUS_ALT_SID=$BUS_ALT_CACHE/sid
    export BUS_ALT_SID
    if [ -e "$BUS_ALT_SID/.complete" ]; then return; fi
    say "downloading PostgreSQL and poolers of Debian's suite sid (60 MB)"
    use_suite sid
    version=$(postgresql_version sid)
    unpack_packages sid "$BUS_ALT_SID" "postgresql-$version" "postgresql-client-$version" \
        pgbouncer odyssey pgagroal pgpool2
    # the machine's C library may be too old for them: each starts with the loader from sid
    loader=$(echo "$BUS_ALT_SID"/usr/lib/*-linux-gnu*/ld-linux-*.so.*)
    for program in "$BUS_ALT_SID"/usr/lib/postgresql/*/bin/* \
        "$BUS_ALT_SID"/usr/sbin/pgbouncer "$BUS_ALT_SID"/usr/bin/odyssey \
        "$BUS_ALT_SID"/usr/bin/pgagroal* "$BUS_ALT_SID"/usr/sbin/pgpool; do
        mv "$program" "$program.real"
        printf '#!/bin/sh\nexec %s --library-path %s --argv0 %s %s.real "$@"\n' \
            "$loader" "${loader%/*}" "$program" "$program" >"$program"
        chmod +x "$program"
    done
    touch "$BUS_ALT_SID/.complete"
}

# A browser for the tests of Odoo 19, Prometheus, and what checks the recipes of docs/.
need_browser() {
    root=$BUS_ALT_CACHE/browser
    if [ ! -e "$root/.complete-2" ]; then
        say "downloading Chromium, nginx, Prometheus and systemd (Debian packages, unpacked into the cache)"
        apt_get machine update || true  # a third-party source may be out of reach
        packages="nginx systemd fonts-dejavu-core prometheus"
        # Ubuntu's package chromium-browser only installs its snap
        ! apt_cache machine show chromium 2>/dev/null | grep -q '^Package: chromium$' ||
            packages="$packages chromium"
        # shellcheck disable=SC2086  # one word per package
        unpack_packages machine "$root" $packages
        touch "$root/.complete-2"
    fi
    export BUS_ALT_BROWSER="$root" PLAYWRIGHT_BROWSERS_PATH="$BUS_ALT_CACHE/playwright"
    if [ ! -e "$root/usr/lib/chromium/chromium" ] && [ ! -e "$PLAYWRIGHT_BROWSERS_PATH/.complete" ]; then
        say "downloading Chromium (Playwright's), and with apt what it links to"
        "$VENV/bin/python" -m playwright install --with-deps chromium
        touch "$PLAYWRIGHT_BROWSERS_PATH/.complete"
    fi
}

# etcd, Patroni and HAProxy for the cluster; Patroni has a Python environment of its own.
need_cluster() {
    root=$BUS_ALT_CACHE/cluster
    if [ ! -e "$root/.complete" ]; then
        say "downloading etcd and HAProxy (Debian packages, unpacked into the cache)"
        apt_get cluster update || true  # a third-party source may be out of reach
        unpack_packages cluster "$root" etcd-server haproxy
        touch "$root/.complete"
    fi
    odoo_venv=$VENV
    need_venv patroni "$HERE/tests/requirements-patroni.txt"
    export BUS_ALT_CLUSTER="$root" BUS_ALT_PATRONI="$VENV"
    VENV=$odoo_venv
}

# need_odoo SERIES SUITE PACKAGES…: an Odoo from a suite of Debian.
need_odoo() {
    series=$1
    suite=$2
    shift 2
    root=$BUS_ALT_CACHE/odoo-$series
    if [ ! -e "$root/.complete" ]; then
        say "downloading Odoo $series (Debian's package, about 100 MB)"
        rm -rf "$root"
        mkdir -p "$root"
        use_suite "$suite"
        (cd "$root" && apt_get "$suite" download "$@")
        say "unpacking Odoo $series"
        for deb in "$root"/*.deb; do
            dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$root" --exclude='*/i18n/*' --exclude='*/l10n_*'
        done
        rm "$root"/*.deb
        touch "$root/.complete"
    fi
    BUS_ALT_ODOO=$root/usr/bin/odoo
    BUS_ALT_ODOO_PATH=$root/usr/lib/python3/dist-packages
    BUS_ALT_ADDONS=$BUS_ALT_ODOO_PATH/odoo/addons
    export BUS_ALT_ODOO BUS_ALT_ODOO_PATH BUS_ALT_ADDONS
}

# Python 3.9 for Odoo 14.0, from the same suite, in a folder of its own.
need_python_39() {
    root=$BUS_ALT_CACHE/python-3.9
    if [ ! -e "$root/.complete" ]; then
        say "downloading Python 3.9 (Debian's package)"
        rm -rf "$root"
        mkdir -p "$root"
        use_suite bullseye
        (cd "$root" && apt_get bullseye download python3.9 python3.9-minimal libpython3.9-stdlib \
            libpython3.9-minimal python3-distutils python3-lib2to3 \
            libssl1.1 libffi7 libmpdec3 libexpat1 libsqlite3-0)
        for deb in "$root"/*.deb; do dpkg-deb -x "$deb" "$root"; done
        rm "$root"/*.deb
        # its own pip is in a package that wants fixed paths: borrow one
        "$PYTHON" -m venv "$root/pip"
        touch "$root/.complete"
    fi
    libraries=
    for folder in "$root"/usr/lib/*-linux-gnu* "$root"/lib/*-linux-gnu*; do
        libraries=$libraries${libraries:+:}$folder
    done
    export LD_LIBRARY_PATH="$libraries"
    PYTHON=$root/usr/bin/python3.9
}

use_odoo_checkout() {
    BUS_ALT_ODOO_PATH=$(CDPATH='' cd -- "$1" && pwd) || fail "--odoo: no folder $1"
    BUS_ALT_ODOO=$BUS_ALT_ODOO_PATH/odoo-bin
    [ -e "$BUS_ALT_ODOO" ] || BUS_ALT_ODOO=$BUS_ALT_ODOO_PATH/setup/odoo  # a nightly tarball
    [ -e "$BUS_ALT_ODOO" ] || fail "--odoo: neither odoo-bin nor setup/odoo in $BUS_ALT_ODOO_PATH"
    BUS_ALT_ADDONS=$BUS_ALT_ODOO_PATH/odoo/addons
    [ ! -d "$BUS_ALT_ODOO_PATH/addons" ] || BUS_ALT_ADDONS=$BUS_ALT_ADDONS,$BUS_ALT_ODOO_PATH/addons
    export BUS_ALT_ODOO BUS_ALT_ODOO_PATH BUS_ALT_ADDONS
    # (15, 0, …) is 15.0, and ('saas~18', 3, …) 18.3
    SERIES=$(sed -n "s/^version_info = ([^0-9]*\([0-9]*\)'*, *\([0-9]*\).*/\1.\2/p" \
        "$BUS_ALT_ODOO_PATH/odoo/release.py")
    [ -n "$SERIES" ] || fail "--odoo: no version_info in $BUS_ALT_ODOO_PATH/odoo/release.py"
    REQUIREMENTS_OF=19.0
    case $SERIES in
        14.* | 15.*) REQUIREMENTS_OF=${SERIES%.*}.0 ;;
        16.* | 17.* | 18.*)
            REQUIREMENTS_OF=16.0-18.0
            NEWEST_PYTHON=11  # the wheels that they need are not built for later ones
            ;;
    esac
}

# Tell whether a Python has what the Odoo in use imports.
imports_odoo() {
    PYTHONPATH=$BUS_ALT_ODOO_PATH "$1" -c \
        "import gevent, odoo.http, odoo.models, odoo.service.server, odoo.addons.base.models" \
        >/dev/null 2>&1
}

# requirements REQUIREMENTS_OF: print the name of a file with what these series need, as wheels.
requirements() {
    file=$HERE/tests/requirements-odoo-$1.txt
    case $1 in
        15.0) base=14.0 ;;
        16.0-18.0) base=19.0 ;;
        *) echo "$file"; return ;;
    esac
    # where both files name a package, the line of the first one counts
    awk -F '[=<>;]' '{ name = tolower($1) } NR == FNR { seen[name]; print; next } !(name in seen)' \
        "$file" "$HERE/tests/requirements-odoo-$base.txt" >"$BUS_ALT_CACHE/requirements-odoo-$1.txt"
    echo "$BUS_ALT_CACHE/requirements-odoo-$1.txt"
}

# --- Virtual environments ---------------------------------------------------------

# need_venv NAME REQUIREMENTS…: an environment made from these files; sets VENV. If BASE_PYTHON is
# set, it has all that PYTHON has as well.
need_venv() {
    name=$1
    shift
    key=$({ "$PYTHON" -VV; echo "${BASE_PYTHON:+$PYTHON}"; cat "$@"; } | sha256sum | cut -c 1-12)
    VENV=$BUS_ALT_CACHE/venv-$name-$key
    if [ ! -e "$VENV/.complete" ]; then
        say "installing Python packages ($name)"
        rm -rf "$VENV"
        export PIP_CACHE_DIR="$BUS_ALT_CACHE/pip" PIP_DISABLE_PIP_VERSION_CHECK=1
        if [ "$PYTHON" = "$BUS_ALT_CACHE/python-3.9/usr/bin/python3.9" ]; then
            "$PYTHON" -m venv --without-pip "$VENV"
            for pip in "$BUS_ALT_CACHE"/python-3.9/pip/lib/python3*/site-packages/pip; do
                "$VENV/bin/python" "$pip" install -qq --no-deps pip==25.0.1 setuptools==67.8.0
            done
        else
            "$PYTHON" -m venv "$VENV"
        fi
        if [ -n "${BASE_PYTHON:-}" ]; then
            for folder in "$VENV"/lib/python3*/site-packages; do
                "$PYTHON" -c "import sys; print(*(p for p in sys.path if p.endswith('-packages')), sep='\n')" \
                    >"$folder/base_python.pth"
            done
        fi
        requirements=
        for file in "$@"; do requirements="$requirements -r $file"; done
        # shellcheck disable=SC2086  # one word per option
        env -u PYTHONPATH "$VENV/bin/python" -m pip install -qq $requirements
        touch "$VENV/.complete"
    fi
}

setup() {
    mkdir -p "$BUS_ALT_CACHE" || fail "cannot write to the cache folder $BUS_ALT_CACHE; set BUS_ALT_CACHE"
    BASE_PYTHON=
    if [ -n "$ODOO_CHECKOUT" ]; then
        use_odoo_checkout "$ODOO_CHECKOUT"
        if [ -n "${PYTHON:-}" ]; then
            if imports_odoo "$PYTHON"; then
                BASE_PYTHON=$PYTHON
            else
                say "$PYTHON has not all that this Odoo imports: installing it"
            fi
        fi
    fi
    [ -n "$BASE_PYTHON" ] || need_python
    # Two commands at once: the second waits for the first one's downloads.
    exec 9>"$BUS_ALT_CACHE/lock"
    flock 9
    need_servers
    if [ -n "$BASE_PYTHON" ]; then
        need_venv checkout "$HERE/tests/requirements.txt"
    elif [ -n "$ODOO_CHECKOUT" ]; then
        case $REQUIREMENTS_OF in 14.0 | 15.0) need_python_39 ;; esac
        need_venv "odoo-$REQUIREMENTS_OF" "$HERE/tests/requirements.txt" "$(requirements "$REQUIREMENTS_OF")"
    elif [ "$SERIES" = 14.0 ]; then
        need_odoo 14.0 bullseye odoo-14 \
            libjs-jquery libjs-underscore libjs-jquery-ui libjs-bootstrap
        need_python_39
        need_venv odoo-14.0 "$HERE/tests/requirements.txt" "$HERE/tests/requirements-odoo-14.0.txt"
    else
        need_odoo 19.0 sid odoo-19 libjs-jquery libjs-jquery-form libjs-underscore
        need_venv odoo-19.0 "$HERE/tests/requirements.txt" "$HERE/tests/requirements-docs.txt" \
            "$HERE/tests/requirements-odoo-19.0.txt"
    fi
    flock -u 9
    exec 9>&-
    unset PGHOST PGPORT PGUSER PGPASSWORD PGDATABASE PGSERVICE PGSSLMODE PGAPPNAME ODOO_RC
    export PYTHONPATH="$BUS_ALT_ODOO_PATH" PYTHONDONTWRITEBYTECODE=1
    cd "$HERE" || exit
}
