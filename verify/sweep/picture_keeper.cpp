// SPDX-License-Identifier: Apache-2.0
#include "sweep/picture_keeper.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace mlstm::verify {
namespace {

/// Others may share the detail, so it is replaced.
void take_picture_away(Item& item) {
  if (!item.detail || !item.detail->picture) return;
  item.detail = std::make_shared<Detail>(*item.detail);
  item.detail->picture.reset();
}

}  // namespace

bool PictureKeeper::Rank::operator<(const Rank& other) const {
  return error_ratio != other.error_ratio ? error_ratio > other.error_ratio : unit < other.unit;
}

bool PictureKeeper::may_have_picture(const Item& item) { return item.error_ratio.has_value(); }

PictureKeeper::Rank PictureKeeper::rank_of(const Item& item, std::int64_t unit) {
  const double ratio = *item.error_ratio;
  return {std::isnan(ratio) ? std::numeric_limits<double>::infinity() : ratio, unit};
}

bool PictureKeeper::wants(const Group& group, const Rank& rank) const {
  const std::size_t places = rank.error_ratio <= 1 ? 1 : kMostFailing;
  const std::lock_guard lock(mutex_);
  const auto found = best_.find(group);
  return found == best_.end() || found->second.size() < places || !(found->second[places - 1] < rank);
}

bool PictureKeeper::wants(const Item& item, DType dtype, std::int64_t unit) const {
  if (!may_have_picture(item)) return false;
  return wants(Group(item.variant, to_string(dtype), item.tensor, item.convention), rank_of(item, unit));
}

void PictureKeeper::add(Record& record) {
  Item& item = record.item;
  if (!may_have_picture(item)) return;
  const Group group(item.variant, record.dtype, item.tensor, item.convention);
  const Rank rank = rank_of(item, record.unit);
  const bool wanted = wants(group, rank);
  if (!wanted) take_picture_away(item);
  const std::lock_guard lock(mutex_);
  std::vector<Rank>& best = best_[group];
  best.insert(std::upper_bound(best.begin(), best.end(), rank), rank);
  if (best.size() > kMostFailing) best.pop_back();
}

void PictureKeeper::prune(std::vector<Record>& records) {
  std::vector<std::size_t> order;
  for (std::size_t n = 0; n < records.size(); ++n)
    if (may_have_picture(records[n].item)) order.push_back(n);
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return rank_of(records[a].item, records[a].unit) < rank_of(records[b].item, records[b].unit);
  });
  std::map<Group, std::size_t> taken;
  for (const std::size_t n : order) {
    Item& item = records[n].item;
    const std::size_t place = taken[Group(item.variant, records[n].dtype, item.tensor, item.convention)]++;
    const bool passes = rank_of(item, 0).error_ratio <= 1;
    if (place >= (passes ? 1 : kMostFailing)) take_picture_away(item);
  }
}

}  // namespace mlstm::verify
