// SPDX-License-Identifier: Apache-2.0
#include "cases/source_digest.hpp"

#include <fmt/format.h>

namespace mlstm::verify {
namespace {

/// The attribute's text, or empty.
std::string text_of(const KernelData& kernel, const char* attribute) {
  const auto found = kernel.attributes.find(attribute);
  if (found == kernel.attributes.end()) return {};
  const auto* text = std::get_if<std::string>(&found->second);
  return text == nullptr ? "" : *text;
}

std::string in_short(const std::string& digest) { return digest.empty() ? "none" : digest.substr(0, 12); }

}  // namespace

std::string source_digest(std::string_view key) {
  const auto found = source_digests().find(key);
  return found == source_digests().end() ? "" : found->second;
}

std::string why_stale(const KernelData& kernel) {
  if (!text_of(kernel, "source").starts_with("mlstm ")) return {};
  const std::string now = source_digest(kernel.variant), then = text_of(kernel, "source_sha256");
  if (now.empty()) return fmt::format("there is no variant {} any more", kernel.variant);
  if (now == then) return {};
  return fmt::format("recorded from other source (SHA-256 {}, the tree has {})", in_short(then), in_short(now));
}

}  // namespace mlstm::verify
