// SPDX-License-Identifier: Apache-2.0
// Case files that HDF5 takes for sound, with anything in them. (What HDF5 itself does with damaged files is another
// matter: it crashes, which is why read_case lets a child process read. See corruption_test.)
#include <new>

#include "cases/case_file.hpp"
#include "cases/case_image.hpp"
#include "recipe.hpp"
#include "small_case.hpp"
#include "targets.hpp"

namespace mlstm::fuzz {
namespace {

using namespace std::string_literals;

verify::Case decode(const std::string& image) {
  std::uint64_t announced = 0;
  verify::Case c = verify::decode_case(image, [&](std::uint64_t bytes) { announced += bytes; });
  std::uint64_t held = 0;
  for (const verify::TensorMap* tensors : {&c.inputs, &c.cotangents})
    for (const auto& [name, array] : *tensors) held += sizeof(double) * array.size();
  require(held <= announced, "memory is announced before it is taken");
  return c;
}

bool run(std::string_view recipe) {
  const std::string image = cook(recipe);
  if (image.empty()) return false;
  try {
    const verify::Case c = decode(image);
    verify::validate(c);
    // Now and then, because it takes long.
    if (recipe.size() % 4 == 0)
      require(test::same(decode(verify::encode_case(c)), c), "a case says the same when it is written again");
    return true;
  } catch (const verify::FileError& refusal) {
    require_message(refusal.what());
  } catch (const std::invalid_argument& refusal) {
    require_message(refusal.what());
  }
  return false;
}

std::vector<std::string> seeds() {
  return {"\0"s,
          "\1"s,
          "\0\1\0\1\1\2"s,
          "\1\1\3\3\0\1\2\3"s,
          "\0\1\1\10\0\6\0\2\1\1\1\1\1"s,
          "\1\1\6\5\5\1\2\6\2\1\1\0"s,
          "\1\0\0\1\4\3\0\1\2"s};
}

}  // namespace

Target case_target() {
  return {"case", run, seeds, {"\0\0"s, "\1"s, "\2\1\0"s, "\10\1"s, "\3\0\0\300\177"s, "\6\0"s, "\4"s}};
}

}  // namespace mlstm::fuzz
