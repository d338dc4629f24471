# Helpers for the scripts in this folder. Each sources it first.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Progress goes to stderr, so that stdout stays free for results.
say() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }

die() {
  say "$*"
  exit 1
}

# die_of_signals: a shell's loop goes on after a script that exits on Ctrl-C, and ends after one that dies of it. What
# EXIT is trapped with runs before.
die_of_signals() {
  local signal
  for signal in INT TERM; do
    # shellcheck disable=SC2064
    trap "trap - $signal; kill -$signal \$\$" "$signal"
  done
}

have() { command -v "$1" >/dev/null 2>&1; }

# The oldest Rust that builds tokenizers/, as its manifest says.
rust_needed() { sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$root/tokenizers/Cargo.toml"; }

# Prints a cargo that is new enough; fails where there is none. cmake/Tokenizers.cmake looks in the same places.
find_cargo() {
  local cargo version
  for cargo in cargo "${CARGO_HOME:-${HOME:-}/.cargo}/bin/cargo" /usr/bin/cargo; do
    version=$("$cargo" --version 2>/dev/null | sed -n 's/^cargo \([0-9.]*\).*/\1/p') || continue
    [[ -n $version ]] || continue
    if printf '%s\n%s\n' "$(rust_needed)" "$version" | sort --version-sort --check=quiet; then
      command -v "$cargo"
      return 0
    fi
  done
  return 1
}

# build PRESET TARGET...: configures, with what $options adds, and builds in build/PRESET. Says what it does; the compilers' output only on failure.
build() {
  local preset=$1 log
  shift
  log=$(mktemp)
  say "building $* ($preset)"
  if ! { cmake --preset "$preset" ${options[@]+"${options[@]}"} && cmake --build --preset "$preset" --target "$@"; } >"$log" 2>&1; then
    tail -n 60 "$log" >&2
    rm -f "$log"
    die "building $* ($preset) failed"
  fi
  rm -f "$log"
}

# python_env FOLDER REQUIREMENTS [PIP OPTION...]: a Python environment with these packages, made again when the list changes.
python_env() {
  local folder=$1 requirements=$2
  shift 2
  cmp -s "$requirements" "$folder/installed.txt" && return
  say "installing $(basename "$requirements") into $(basename "$folder")"
  python3 -m venv --clear "$folder" ||
    die "python3 cannot create an environment (Debian: apt-get install python3-venv)"
  "$folder/bin/pip" install --quiet --disable-pip-version-check --retries 5 "$@" -r "$requirements" >&2 ||
    die "pip could not install $requirements; its message is above"
  cp "$requirements" "$folder/installed.txt"
}
