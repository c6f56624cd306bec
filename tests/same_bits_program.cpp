// SPDX-License-Identifier: Apache-2.0
// The whole generator as one program without libraries: prints a checksum per problem. same_bits_test.cpp compiles it.
#include <bit>
#include <cstdio>
#include <vector>

#include "../reference/src/contract/dtype.cpp"
#include "../reference/src/contract/problem.cpp"
#include "../verify/base/random.cpp"
#include "../verify/cases/problems_draw.cpp"
#include "../verify/cases/problems_regimes.cpp"
#include "../verify/cases/problems_simple.cpp"

int main() {
  using namespace mlstm;
  std::vector<verify::Recipe> recipes = verify::recipes();
  recipes.insert(recipes.end(), verify::simple_recipes().begin(), verify::simple_recipes().end());
  for (const verify::Recipe& recipe : recipes)
    for (const DType dtype : {DType::float64, DType::bfloat16})
      for (const Gate gate : {Gate::exp, Gate::sigmoid}) {
        verify::DrawRequest request{recipe.name, {}, 7, true, true};
        request.problem.shape = {2, 3, 40, 5, 6};
        request.problem.dtype = dtype;
        request.problem.gate = gate;
        request.problem.has_initial_state = true;
        const verify::Drawn drawn = verify::draw(request);
        std::uint64_t sum = 14695981039346656037u;
        for (const verify::Values* tensors : {&drawn.inputs, &drawn.cotangents})
          for (const auto& [name, values] : *tensors)
            for (const double value : values) sum = (sum ^ std::bit_cast<std::uint64_t>(value)) * 1099511628211u;
        std::printf("%s %s %s %016llx\n", recipe.name.c_str(), std::string(to_string(dtype)).c_str(),
                    std::string(to_string(gate)).c_str(), static_cast<unsigned long long>(sum));
      }
}
