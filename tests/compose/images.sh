# shellcheck shell=sh
# How need_engine (provision.sh) builds the engine's root file system and the base images, of
# Debian's packages, in the folder $COMPOSE.

# debootstrap and wget, which it needs, unpacked
need_debootstrap() {
    tools=$COMPOSE/roots/debootstrap
    apt_get machine update || true
    unpack_packages machine "$tools" debootstrap wget
    printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s/usr/bin/wget "$@"\n' \
        "$(echo "$tools"/usr/lib/*-linux-gnu* | tr ' ' :)" "$tools" >"$tools/wget"
    chmod +x "$tools/wget"
}

# base_root SUITE: make the smallest root file system of a suite.
base_root() {
    PATH="$tools:$PATH" DEBOOTSTRAP_DIR="$tools/usr/share/debootstrap" \
        "$tools/usr/sbin/debootstrap" --variant=minbase --keyring="$(debian_keyring)" \
        "$1" "$COMPOSE/roots/$1" "$(debian_mirror)"
    # services do not start in it, and nothing reads manuals there
    printf '#!/bin/sh\nexit 101\n' >"$COMPOSE/roots/$1/usr/sbin/policy-rc.d"
    chmod +x "$COMPOSE/roots/$1/usr/sbin/policy-rc.d"
    # whether apt may trust this machine's clock, and the way out
    apt-config dump | grep -E '^Acquire::(Check-|http::Proxy|https::Proxy|Retries)' \
        >"$COMPOSE/roots/$1/etc/apt/apt.conf.d/machine" || true
    cat >"$COMPOSE/roots/$1/etc/dpkg/dpkg.cfg.d/small" <<'END'
force-unsafe-io
path-exclude /usr/share/doc/*
path-exclude /usr/share/man/*
path-exclude /usr/share/locale/*
END
}

# in_root FOLDER COMMAND…: run a command with this root, /proc and /dev in a namespace of its own.
in_root() {
    root=$1
    shift
    # shellcheck disable=SC2016  # the inner shell expands these
    unshare --mount sh -euc '
        mount --bind /dev "$0/dev"
        mount -t proc proc "$0/proc"
        exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
            DEBIAN_FRONTEND=noninteractive chroot "$0" "$@"
    ' "$root" "$@"
}

install_in() {
    root=$1
    shift
    in_root "$root" apt-get -qq update
    in_root "$root" apt-get -qq -y --no-install-recommends install "$@"
}

# image NAME ROOT: put the root of an image beside the engine; tests.compose imports it.
image() {
    rm -rf "$2/var/cache/apt/archives" "$2/var/lib/apt/lists" "$2/usr/sbin/policy-rc.d"
    mkdir -p "$2/var/lib/apt/lists/partial" "$2/var/cache/apt/archives/partial"
    entry=$HERE/tests/compose/images/$1.sh
    [ ! -e "$entry" ] || install -m 755 "$entry" "$2/usr/local/bin/entrypoint.sh"
    tar -c -C "$2" . >"$COMPOSE/images/$1.tar"
}

images_of_bookworm() (
    set -e
    roots=$COMPOSE/roots
    base_root bookworm
    for name in postgres nginx debian odoo; do cp -a "$roots/bookworm" "$roots/$name"; done

    mkdir -p "$roots/postgres/etc/postgresql-common"
    # no cluster of the package's own: the entry point makes one
    echo 'create_main_cluster = false' >"$roots/postgres/etc/postgresql-common/createcluster.conf"
    install_in "$roots/postgres" postgresql gosu
    # what user postgres owns there, for those who name it as the container's user
    in_root "$roots/postgres" install -d -m 700 -o postgres -g postgres /var/lib/postgresql/data
    in_root "$roots/postgres" install -d -m 2777 -o postgres -g postgres /var/run/postgresql
    image postgres "$roots/postgres"

    install_in "$roots/nginx" nginx-light
    rm -f "$roots/nginx/etc/nginx/sites-enabled/default"
    ln -sf /dev/stdout "$roots/nginx/var/log/nginx/access.log"
    ln -sf /dev/stderr "$roots/nginx/var/log/nginx/error.log"
    image nginx "$roots/nginx"

    # what pgbouncer/Dockerfile installs, as a repository inside the image: the engine's network
    # leads nowhere
    in_root "$roots/debian" apt-get -qq update
    in_root "$roots/debian" apt-get -qq -y --no-install-recommends install --download-only pgbouncer postgresql-client
    mkdir "$roots/debian/srv/debian"
    mv "$roots"/debian/var/cache/apt/archives/*.deb "$roots/debian/srv/debian/"
    for deb in "$roots"/debian/srv/debian/*.deb; do
        dpkg-deb -f "$deb"
        printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "${deb##*/}" "$(stat -c %s "$deb")" \
            "$(sha256sum "$deb" | cut -d ' ' -f 1)"
    done >"$roots/debian/srv/Packages"
    mv "$roots/debian/srv/Packages" "$roots/debian/srv/debian/"
    echo 'deb [trusted=yes] file:/srv/debian ./' >"$roots/debian/etc/apt/sources.list"
    image debian "$roots/debian"
    odoo_image
)

# Odoo of the tests (need_odoo), and what it imports, with Debian's Python: Odoo 19 does not run with
# sid's own.
odoo_image() {
    there=$COMPOSE/roots/odoo
    install_in "$there" python3 python3-pip curl ca-certificates adduser
    in_root "$there" adduser --quiet --system --uid 101 --group --home /var/lib/odoo odoo
    case $("$VENV/bin/python" -V) in
        *" 3.11."*)  # bookworm's, too: what the tests import does
            mkdir -p "$there/usr/local/lib/python3.11/dist-packages"
            cp -a "$VENV"/lib/python3.11/site-packages/. "$there/usr/local/lib/python3.11/dist-packages/"
            rm -rf "$there"/usr/local/lib/python3.11/dist-packages/playwright
            ;;
        *)
            cp "$HERE/tests/requirements-odoo-19.0.txt" "$there/tmp/requirements.txt"
            in_root "$there" python3 -m pip install -q --no-cache-dir --break-system-packages \
                --root-user-action=ignore -r /tmp/requirements.txt
            ;;
    esac
    cp -a "$BUS_ALT_CACHE/odoo-19.0/usr/." "$there/usr/"
    mkdir -p "$there/etc/odoo" "$there/mnt/extra-addons"
    printf '[options]\naddons_path = /mnt/extra-addons\ndata_dir = /var/lib/odoo\n' >"$there/etc/odoo/odoo.conf"
    in_root "$there" chown -R odoo: /etc/odoo /var/lib/odoo /mnt/extra-addons
    in_root "$there" odoo --version
    image odoo "$there"
}

engine_of_sid() (
    set -e
    roots=$COMPOSE/roots
    base_root sid
    install_in "$roots/sid" docker.io docker-cli docker-compose docker-buildx \
        iptables iproute2 tini kustomize
    mv "$roots/sid" "$COMPOSE/engine"
)
