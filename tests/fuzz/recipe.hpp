// SPDX-License-Identifier: Apache-2.0
// HDF5 files of sound structure and any content: a few changes, said by bytes, to a valid case.
#pragma once

#include <string>
#include <string_view>

namespace mlstm::fuzz {

/// The bytes of the file that `recipe` describes, empty if HDF5 refuses to make it. The first byte chooses the case,
/// each further group of bytes is one change: of an attribute, a dataset, a group or a link.
std::string cook(std::string_view recipe);

}  // namespace mlstm::fuzz
