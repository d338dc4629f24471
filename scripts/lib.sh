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

# have_node: whether there is a node that builds the page, with npm. cmake/Viewer.cmake asks the same.
have_node() {
  local version
  version=$(node --version 2>/dev/null | sed -n 's/^v\([0-9]*\)\..*/\1/p') || return 1
  have npm && [[ -n $version ]] && ((version >= 18))
}

# progress LOG: ninja's lines, all of them where they follow each other on a terminal, else one every ten seconds. What is no such
# line is a compiler's and goes to the log.
progress() {
  local line last=-10
  while IFS= read -r line; do
    if [[ $line != "@ "* ]]; then
      printf '%s\n' "$line" >>"$1"
    elif [[ -t 2 ]]; then
      printf '\r\033[K%s: %s' "$(basename "$0")" "${line#@ }" >&2
    elif ((SECONDS >= last + 10)); then
      last=$SECONDS
      say "${line#@ }"
    fi
  done
  [[ ! -t 2 ]] || echo >&2
}

# program_and_model WHAT [CMAKE OPTION...]: installs what scripts/install --WHAT names, builds the program alone with the kernels of
# this machine alone, and fetches MiniLM, as far as each is missing. Sets program and model.
program_and_model() {
  local what=$1 work fetching= status=0
  shift
  work=$(mktemp -d)
  # shellcheck disable=SC2064
  trap "kill \$(cat '$work/fetching' 2>/dev/null) 2>/dev/null || true; rm -rf '$work'" EXIT
  die_of_signals
  # The model comes from the network while the processors install and compile.
  fetch() {
    scripts/fetch-model >"$work/model" &
    fetching=$!
    echo $fetching >"$work/fetching"
  }
  ! python3 -m pip --version >/dev/null 2>&1 || fetch
  scripts/install "--$what"
  [[ -n $fetching ]] || fetch

  say "building manyheads for this machine (build/demo)"
  if ! { cmake -S . -B build/demo -G Ninja -DMANYHEADS_TESTS=OFF -DMANYHEADS_THIS_MACHINE=ON -DCMAKE_UNITY_BUILD=ON "$@" &&
         NINJA_STATUS='@ [%f of %t, %e s] ' cmake --build build/demo --target manyheads_program; } 2>&1 | progress "$work/log"; then
    tail -n 60 "$work/log" >&2
    die "the build failed"
  fi
  wait "$fetching" || status=$?
  rm -f "$work/fetching"
  ((status == 0)) || die "the model could not be fetched; the message is above"
  program=build/demo/bin/manyheads
  model=$(cat "$work/model")
}

# try_install PACKAGE...: from Debian, where this user may. Whoever calls it looks whether they are there.
try_install() {
  local as_root=()
  have apt-get || return 0
  [[ $(id -u) -eq 0 ]] || as_root=(sudo -n)
  say "installing $*"
  { "${as_root[@]}" apt-get -qq -o DPkg::Lock::Timeout=300 update &&
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install --yes --no-remove \
      --no-install-recommends "$@"; } >&2 || true
}

# install_clang: clang-19 with the sanitizers' runtime and libFuzzer, for the preset asan. scripts/wasm may have installed the
# compiler without them. Fails where they cannot be had.
install_clang() {
  can_fuzz() {
    have clang++-19 &&
      echo 'extern "C" int LLVMFuzzerTestOneInput(const char*, unsigned long) { return 0; }' |
      clang++-19 -fsanitize=address,fuzzer -x c++ - -o /dev/null 2>/dev/null
  }
  can_fuzz || { try_install clang-19 libclang-rt-19-dev; can_fuzz; }
}

# build PRESET TARGET...: configures, with what $options adds, and builds in build/PRESET. Says what it does; the compilers' output only on failure.
build() {
  local preset=$1 log
  shift
  log=$(mktemp)
  # One that g++ made: where it finds another compiler, CMake forgets $options.
  if [[ $preset == asan && -e build/asan/CMakeCache.txt ]] && ! grep -q '^CMAKE_CXX_COMPILER:.*clang' build/asan/CMakeCache.txt; then
    rm -rf build/asan
  fi
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
