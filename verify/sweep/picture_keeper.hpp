// SPDX-License-Identifier: Apache-2.0
// Which of many judged tensors keep the picture of their errors.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include "sweep/sweep.hpp"

namespace mlstm::verify {

/// Of each variant, dtype, tensor and convention the item with the largest error_ratio keeps its picture; of those
/// beyond their bound the kMostFailing worst do. Equals go by unit, so that the choice does not depend on the order in
/// which units finish. Usable from several threads.
class PictureKeeper {
 public:
  static constexpr std::size_t kMostFailing = 4;

  /// Whether an item of `unit`, of which variant, tensor, convention and error_ratio are set, would keep its picture
  /// among those added so far.
  bool wants(const Item& item, DType dtype, std::int64_t unit) const;

  /// Counts the record in, and takes its picture away if it cannot keep it. A picture that a later record makes
  /// superfluous stays until prune().
  void add(Record& record);

  /// Leaves exactly the pictures that the rule above allows over all of `records`.
  static void prune(std::vector<Record>& records);

 private:
  using Group = std::tuple<std::string, std::string, std::string, std::string>;
  /// Larger ratios first, then smaller units.
  struct Rank {
    double error_ratio;
    std::int64_t unit;
    bool operator<(const Rank& other) const;
  };
  static bool may_have_picture(const Item& item);
  static Rank rank_of(const Item& item, std::int64_t unit);
  bool wants(const Group& group, const Rank& rank) const;

  mutable std::mutex mutex_;
  std::map<Group, std::vector<Rank>> best_;  ///< sorted; at most kMostFailing of each
};

}  // namespace mlstm::verify
