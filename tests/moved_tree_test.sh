#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A build folder moves with its tree: programs find their libraries beside them, and verify/setup.sh configures anew.
#
#   tests/moved_tree_test.sh BUILD        the build folder
set -euo pipefail
build_folder=$(realpath "$1")
here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {
  echo "FAILED: $*"
  exit 1
}

# Programs and libraries, in another place.
mkdir -p "$work/moved"
cp -r "$build_folder/lib" "$work/moved/lib"
mkdir "$work/moved/bin"
cp "$build_folder/bin/mlstm" "$work/moved/bin"
ldd "$work/moved/bin/mlstm" >"$work/libraries"
grep -q "$work/moved/" "$work/libraries" || fail "the moved program uses none of its own libraries: $(cat "$work/libraries")"
! grep -F "$build_folder/" "$work/libraries" || fail "the moved program uses libraries of the place that it came from"
"$work/moved/bin/mlstm" list --format json >"$work/list" || fail "the moved program does not run"
"$build_folder/bin/mlstm" list --format json | cmp - "$work/list" || fail "the moved program has other variants"

# setup.sh's build, with a project that takes no time.
mkdir -p "$work/first/verify"
cp "$here/../verify/setup.sh" "$work/first/verify"
cat >"$work/first/CMakeLists.txt" <<'END'
cmake_minimum_required(VERSION 3.25)
project(small LANGUAGES NONE)
add_custom_target(place ALL COMMAND ${CMAKE_COMMAND} -E echo built in ${PROJECT_SOURCE_DIR})
END
cat >"$work/first/CMakePresets.json" <<'END'
{
  "version": 6,
  "configurePresets": [{"name": "release", "generator": "Ninja", "binaryDir": "${sourceDir}/build/${presetName}"}],
  "buildPresets": [{"name": "release", "configurePreset": "release"}]
}
END
# built TREE: what setup.sh's build says there.
built() { (cd "$1" && bash -c 'set -euo pipefail; source verify/setup.sh; build release' 2>&1) || fail "no build in $1"; }
built "$work/first" | tee "$work/said"
grep -q "built in $work/first" "$work/said" || fail "the tree is not built"
! grep -q "configured anew" "$work/said" || fail "a new tree is taken for a moved one"
built "$work/first" >"$work/said"
! grep -q "configured anew" "$work/said" || fail "a tree that stayed is taken for a moved one"
cp -r "$work/first" "$work/copied"
built "$work/copied" | tee "$work/said"
grep -q "built in $work/copied" "$work/said" || fail "the copied tree is not built in its own place"
grep -q "was made for $work/first, and this is $work/copied: configured anew" "$work/said" || fail "it is not said why"
mv "$work/first" "$work/moved_tree"
built "$work/moved_tree" | tee "$work/said"
grep -q "built in $work/moved_tree" "$work/said" || fail "the moved tree is not built in its own place"
ln -s "$work/moved_tree" "$work/link"
built "$work/link" >"$work/said"
! grep -q "configured anew" "$work/said" || fail "the same tree by another name is taken for a moved one"
echo "ok"
