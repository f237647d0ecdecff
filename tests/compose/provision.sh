# shellcheck shell=sh
# What ./run compose --stand-ins needs, made once and kept in the cache folder: a Docker engine with
# Compose and buildx (Debian's suite sid), and the base images that docker-compose.yml names, of
# Debian's packages. ./run sources this file after tests/provision.sh.

# shellcheck source=tests/compose/images.sh
. "$HERE/tests/compose/images.sh"

# need_engine: the engine's root file system, and one tar file per base image.
need_engine() {
    [ "$(id -u)" = 0 ] || fail "--stand-ins needs root, for the engine and its images: sudo ./run compose --stand-ins"
    COMPOSE=$BUS_ALT_CACHE/compose
    key=$(cat "$HERE"/tests/compose/images.sh "$HERE"/tests/compose/images/* | sha256sum)
    export BUS_ALT_ENGINE=own
    exec 8>"$BUS_ALT_CACHE/lock-compose"
    flock 8
    if [ "$(cat "$COMPOSE/complete" 2>/dev/null)" != "$key" ]; then
        rm -rf "$COMPOSE"
        mkdir -p "$COMPOSE/images" "$COMPOSE/roots"
        say "building a Docker engine and base images of Debian's packages (400 MB; 5 minutes)"
        use_suite sid
        need_debootstrap
        # two cores: each suite has one
        images_of_bookworm >"$COMPOSE/bookworm.log" 2>&1 &
        bookworm=$!
        engine_of_sid >"$COMPOSE/sid.log" 2>&1 &
        wait $! || fail "no engine: see the end of $COMPOSE/sid.log"
        wait $bookworm || fail "no images: see the end of $COMPOSE/bookworm.log"
        rm -rf "$COMPOSE/roots"
        echo "$key" >"$COMPOSE/complete"
    fi
    flock -u 8
    exec 8>&-
}

docker_answers() { docker compose version >/dev/null 2>&1 && docker info >/dev/null 2>&1; }

# need_containers [--stand-ins]: an engine, the machine's or our own, and the browser.
need_containers() {
    if [ "${1:-}" = --stand-ins ]; then
        need_engine
    elif docker_answers; then
        export BUS_ALT_ENGINE=machine
    else
        fail "no Docker engine with Compose answers here; see --stand-ins"
    fi
    need_browser
}

# in_containers ARGUMENTS…: run Python with these arguments, in a network of its own if the engine is ours.
in_containers() {
    if [ "$BUS_ALT_ENGINE" = own ]; then
        unshare --net "$VENV/bin/python" "$@"
    else
        "$VENV/bin/python" "$@"
    fi
}
