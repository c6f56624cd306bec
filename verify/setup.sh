# SPDX-License-Identifier: Apache-2.0
# Sourced by verify/run and tests/run: installs what is missing, builds, says what cannot run here.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

# what configuring and building needs
build_packages=(build-essential cmake ninja-build ccache pkg-config libeigen3-dev libxtensor-dev libboost-dev
  libboost-test-dev nlohmann-json3-dev libhdf5-dev libcli11-dev libfmt-dev librandom123-dev libbenchmark-dev
  libssl-dev)

heading() { printf '\n== %s\n' "$*"; }

# need_packages NAME...: installs those Debian packages that are not installed. Nothing is fetched if all are there.
need_packages() {
  if [ -z "$(command -v dpkg-query)" ]; then
    echo "This is no Debian: nothing is installed. Needed, under Debian's names: $*"
    return
  fi
  local name missing=() as_root=()
  for name in "$@"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || missing+=("$name")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  heading "Installing ${missing[*]}"
  if [ "$(id -u)" -ne 0 ]; then
    if [ -z "$(command -v sudo)" ]; then
      echo "Neither root nor sudo. Please have these packages installed: ${missing[*]}" >&2
      return 1
    fi
    as_root=(sudo)
  fi
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
}

# build PRESET [TARGET...]: configures and builds in build/PRESET, all targets if none is named.
build() {
  local preset=$1 log
  shift
  heading "Building: preset $preset"
  mkdir -p "build/$preset"
  log=build/$preset/configure.log
  if ! cmake --preset "$preset" >"$log" 2>&1; then
    cat "$log" >&2
    return 1
  fi
  grep -E '^-- (mlstm|No CUDA|Google Benchmark not)' "$log" || true
  cmake --build --preset "$preset" --parallel "$(nproc)" ${1:+--target "$@"}
}

# Says aloud what this machine lacks.
say_what_cannot_run() {
  if [ -z "$(command -v nvcc)" ]; then
    echo "CUDA toolkit not found: CUDA and cuBLAS variants are neither built nor run."
  fi
  if ! nvidia-smi -L >/dev/null 2>&1; then
    echo "No GPU: variants that need one cannot run here; they count as SKIPPED."
  fi
}
