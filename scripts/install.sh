# Sourced by the other scripts: installs what is missing on a Debian machine, or says in one sentence what is.

fail() { echo "${0##*/}: $*" >&2; exit 1; }

# install PACKAGE…, as root or through sudo.
install() {
  command -v apt-get >/dev/null || fail "please install $*: there is no apt-get here to do it"
  local sudo=()
  if [[ $(id -u) != 0 ]]; then
    command -v sudo >/dev/null || fail "please install $* as root: there is no sudo here"
    sudo=(sudo)
  fi
  echo "installing $*" >&2
  local log
  log=$(mktemp)
  if ! { "${sudo[@]}" apt-get update -qq && DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq \
    --no-install-recommends "$@"; } >"$log" 2>&1 </dev/null; then
    cat "$log" >&2
    fail "$* cannot be installed"
  fi
  rm -f "$log"
}

need_rust() {
  [[ -x ${CARGO_HOME:-$HOME/.cargo}/bin/cargo ]] && PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
  command -v cargo >/dev/null || fail "there is no Rust toolchain: install one from https://rustup.rs"
  command -v cc >/dev/null || install gcc libc6-dev
}

need_postgres() {
  command -v initdb >/dev/null && command -v postgres >/dev/null && return
  compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null && return
  # Debian's package makes and starts a server of its own unless told not to; ours is private.
  if [[ ! -e /etc/postgresql-common/createcluster.conf ]]; then
    install postgresql-common
    local sudo=()
    [[ $(id -u) == 0 ]] || sudo=(sudo)
    "${sudo[@]}" sed -i 's/^#\?create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf
  fi
  install postgresql
}

# Names below localhost are this machine for every program (RFC 6761), not for browsers and curl alone.
need_localhost_names() {
  getent ahosts any.name.localhost >/dev/null || install libnss-myhostname
}

# make_venv DIRECTORY REQUIREMENTS: a venv with these packages, made anew when the file has changed. Prints its path.
make_venv() {
  local venv=$1 requirements=$2
  if ! cmp -s "$requirements" "$venv/installed"; then
    rm -rf "$venv"
    mkdir -p "$(dirname "$venv")"
    if ! python3 -m venv "$venv" >/dev/null 2>&1; then
      install python3-venv
      rm -rf "$venv"
      python3 -m venv "$venv" >&2 || fail "python3 cannot make a venv"
    fi
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$requirements" >&2
    cp "$requirements" "$venv/installed"
  fi
  realpath "$venv"
}
