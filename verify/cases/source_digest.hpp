// SPDX-License-Identifier: Apache-2.0
// From which source the variants are built, so that a capture can say from which it was taken.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "cases/case.hpp"

namespace mlstm::verify {

/// SHA-256, in lower-case hexadecimal, of the source of every variant folder of the tree that this program was built
/// from, by full key; also of variants that this build leaves out for want of CUDA. The source is the folder's files
/// and those below kernels/ that they include, with their implementations, without comments and white space
/// (source_digests.cpp).
const std::map<std::string, std::string, std::less<>>& source_digests();

/// The digest of one variant; empty if the tree has no such folder.
std::string source_digest(std::string_view key);

/// Why a capture counts as STALE: this program recorded it (its attribute `source` starts with "mlstm "), and the tree
/// has no such variant any more or other source of it than `source_sha256` says. Empty if it is not stale.
std::string why_stale(const KernelData& kernel);

}  // namespace mlstm::verify
