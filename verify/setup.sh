# SPDX-License-Identifier: Apache-2.0
# Sourced by verify/run and tests/run: installs what is missing, builds, says what cannot run here.
#
# MLSTM_CONFIGURE in the environment holds more options for cmake, e.g. "-D MLSTM_CUDA=OFF".

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
# What was compiled in one copy of the tree serves the others.
export CCACHE_BASEDIR=${CCACHE_BASEDIR:-$root} CCACHE_NOHASHDIR=1

# The same names on Debian 12 and 13 and Ubuntu 24.04; tests/fresh_machine_packages has apt resolve them.
# What configuring and building needs, and what README's examples call (hdf5-tools, python3-h5py).
build_packages=(build-essential cmake ninja-build ccache pkg-config libeigen3-dev libxtensor-dev libboost-dev
  libboost-test-dev nlohmann-json3-dev libhdf5-dev libcli11-dev libfmt-dev librandom123-dev libbenchmark-dev libssl-dev
  libseccomp-dev hdf5-tools python3-h5py)
# What tests need beyond that. Ubuntu has Chromium only as a snap: there the tests in a browser are skipped.
test_packages=(clang python3-numpy python3-matplotlib python3-nbconvert python3-ipykernel python3-selenium chromium
  chromium-driver)
# Installed by earlier versions of this script, on Debian 12. They conflict with libboost-dev and all that depends on it.
replaced_packages=(libboost1.81-dev libboost-json1.81-dev libboost-test1.81-dev)
# For systems without apt.
needed_elsewhere="C and C++20 compilers (GCC 12 or Clang 14, or newer), CMake 3.25, Ninja, Eigen 3.4, xtensor 0.24, \
Boost 1.74 (headers and the unit test framework), nlohmann/json 3.11, HDF5 1.10 with its high-level library, CLI11 2.1, \
{fmt} 9, Random123, OpenSSL 3, libseccomp; for examples and tests h5dump and, for /usr/bin/python3, h5py, numpy, matplotlib, \
nbconvert, ipykernel, selenium; Chromium with its driver"

heading() { printf '\n== %s\n' "$*"; }

is_installed() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# need_packages NAME...: installs those packages that are not installed. Nothing is fetched if all are there. What this
# system's apt does not have is said and left out: the build says what it lacks, tests that lack something are skipped.
need_packages() {
  if [ -z "$(command -v apt-get)" ] || [ -z "$(command -v dpkg-query)" ]; then
    echo "No apt here: nothing is installed. Needed: $needed_elsewhere."
    echo "Libraries that are in no usual place are found through CMAKE_PREFIX_PATH (in the environment)."
    return
  fi
  local name missing=() wanted=() absent=() replaced=() as_root=()
  for name in "$@"; do
    is_installed "$name" || missing+=("$name")
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
  # names alone are not enough: apt also knows packages that others merely mention
  local candidates
  candidates=$(apt-cache policy "${missing[@]}" | awk '/^[^ ]/ { name = $1 } /^  Candidate: [^(]/ { print name }')
  for name in "${missing[@]}"; do
    if [[ $'\n'$candidates$'\n' == *$'\n'"$name:"$'\n'* ]]; then wanted+=("$name"); else absent+=("$name"); fi
  done
  if [ ${#absent[@]} -gt 0 ]; then
    echo "This system's apt does not have: ${absent[*]}. What needs them has to find them elsewhere (CMAKE_PREFIX_PATH)."
  fi
  [ ${#wanted[@]} -gt 0 ] || return 0
  if ! apt-get install -s -qq --no-install-recommends "${wanted[@]}" >/dev/null 2>&1; then
    for name in "${replaced_packages[@]}"; do
      ! is_installed "$name" || replaced+=("$name-")
    done
    if ! apt-get install -s -qq --no-install-recommends "${wanted[@]}" "${replaced[@]}" >/dev/null 2>&1; then
      replaced=()  # something else is in the way; apt will say what
    elif [ ${#replaced[@]} -gt 0 ]; then
      echo "Removed, since they are in the way; an earlier version of this script installed them: ${replaced[*]%-}"
    fi
  fi
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    "${wanted[@]}" "${replaced[@]}"
}

# Ninja's lines: of those about progress at most one in five seconds, and the last one; all others.
say_now_and_then() {
  local line last=-5 held=""
  while IFS= read -r line; do
    if [[ ! $line =~ ^\[[0-9]+/[0-9]+\]\  ]]; then
      printf '%s\n' "$line"
    elif [ $((SECONDS - last)) -ge 5 ]; then
      printf '%s\n' "$line"
      last=$SECONDS held=""
    else
      held=$line
    fi
  done
  [ -z "$held" ] || printf '%s\n' "$held"
}

# build PRESET [TARGET...]: configures and builds in build/PRESET, all targets if none is named.
build() {
  local preset=$1 log cache source binary options=()
  shift
  heading "Building: preset $preset"
  mkdir -p "build/$preset"
  log=build/$preset/configure.log
  cache=build/$preset/CMakeCache.txt
  # CMake refuses a build folder that came from elsewhere, by a copy or because the tree was moved.
  if [ -f "$cache" ]; then
    source=$(sed -n 's/^CMAKE_HOME_DIRECTORY:INTERNAL=//p' "$cache")
    binary=$(sed -n 's/^CMAKE_CACHEFILE_DIR:INTERNAL=//p' "$cache")
    if [ ! "$source" -ef "$root" ] || [ ! "$binary" -ef "build/$preset" ]; then
      echo "build/$preset was made for $source, and this is $root: configured anew."
      options=(--fresh)
    fi
  fi
  # shellcheck disable=SC2086  # several options in one variable
  if ! cmake --preset "$preset" "${options[@]}" ${MLSTM_CONFIGURE:-} >"$log" 2>&1; then
    cat "$log" >&2
    return 1
  fi
  grep -E '^-- (mlstm|No CUDA|Google Benchmark not)' "$log" || true
  # In a pipe or a log one line every few seconds, and whatever is no progress.
  if [ -t 1 ]; then
    cmake --build --preset "$preset" --parallel "$(nproc)" ${1:+--target "$@"}
  else
    cmake --build --preset "$preset" --parallel "$(nproc)" ${1:+--target "$@"} 2>&1 | say_now_and_then
  fi
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
