// SPDX-License-Identifier: Apache-2.0
// Third-party variants: shared libraries with the interface of mlstm_kernel.h.
#pragma once

#include <filesystem>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "mlstm/kernel.hpp"

namespace mlstm::verify {

/// A shared library that cannot be used. The message is one line that names the file and, where it is about one, the
/// kernel and the field, its value and what was expected.
class PluginError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A variant of a plugin.
class PluginVariant : public Kernel {
 public:
  PluginVariant(std::string library, VariantInfo info) : library_(std::move(library)), info_(std::move(info)) {}
  const VariantInfo& info() const override { return info_; }
  /// The library's path, as it was given.
  const std::string& library() const { return library_; }
  /// True if the plugin itself is asked what it supports, beside what it declares.
  virtual bool has_supports() const = 0;

 private:
  std::string library_;
  VariantInfo info_;
};

using PluginVariants = std::vector<std::unique_ptr<const PluginVariant>>;

/// Loads a plugin into this process, for good: its code runs from here on. WorkerPool::load_plugin does not. The
/// variants call it; what it returns as an error is a std::runtime_error, an exception that it lets out is a
/// std::exception of no standard type. Throws PluginError.
PluginVariants load_plugin(const std::filesystem::path& library);

/// Throws std::invalid_argument that names the field, its value and what was expected, unless `info` makes sense: a
/// name of letters, digits, '_', '-' and '.', some dtype and gate, stabilizer_init exactly with the exp gate, limits
/// that admit something, cotangents only of what is returned.
void validate(const VariantInfo& info);

}  // namespace mlstm::verify
