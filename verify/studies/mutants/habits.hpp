// SPDX-License-Identifier: Apache-2.0
// What honest kernels of others do otherwise than the specimens that bugs are planted in: no mistakes, but other places
// to round and other orders to sum in. Bounds have to admit them.
#pragma once

namespace mlstm::verify::planted {

enum Habits : unsigned {
  kRoundsScaledCotangent = 1,   ///< dh/d is rounded to an operand before its product with v: an error of all of a row
  kReadsRoundedState = 2,       ///< recurrent: C and n, and dC, are rounded where products read them
  kShortChunks = 4,             ///< chunks of a quarter of L
  kFlushesSubnormals = 8,       ///< subnormal numbers are taken for 0, as operands and as results
  kScattersByDifferences = 16,  ///< the stabiliser's part of df by differences at both ends, and a sum over them
  kCutsByHead = 32,             ///< every second head sums in chunks of half the length, as stream-K products do
  kNarrowGates = 128,           ///< logσ, m, their sums, F and I rounded to bfloat16, and so declared
  kRoundsProducts = 256,        ///< recurrent: the terms of sums rounded to bfloat16, and so declared
  kNarrowStates = 64,  ///< states and their cotangents rounded to bfloat16 whenever they change, and so declared
};

}  // namespace mlstm::verify::planted
