# Sourced by bench/run and bench/optimised.

# Installs these Debian packages.
install() {
    echo "bench: installing $*" >&2
    local sudo=
    [[ $(id -u) -eq 0 ]] || sudo=sudo
    $sudo apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq "$@" >&2
}
