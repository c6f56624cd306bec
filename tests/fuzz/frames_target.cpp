// SPDX-License-Identifier: Apache-2.0
// The fields of frames between verifier and worker: what either end makes of bytes that a kernel may have written.
#include "cases/problems.hpp"
#include "runner/worker_frames.hpp"
#include "targets.hpp"

namespace mlstm::fuzz {
namespace {

using namespace mlstm::verify;

RunRequest request() {
  RunRequest request;
  request.key = std::string("recurrent--sequence_c");
  request.outline = {parse_spec("regime=standard,S=3,DHQK=2,DHV=2,initial_states=1").problem, {"h", "c_last"}};
  request.options.nulls = {"dh", "c_last"};
  request.options.company = Company::moved;
  request.other = CaseOutline{parse_spec("regime=standard,S=5,DHQK=2,DHV=2").problem, {"h"}};
  request.convention = Convention::exact;
  return request;
}

std::vector<Described> variants(const std::string& name = "sequence_c") {
  Described described;
  described.info.name = name;
  described.info.description = std::string("an example");
  described.info.dtypes = {DType::float32};
  described.info.gates = {Gate::exp, Gate::sigmoid};
  described.info.stabilizer_init = {StabilizerInit::zero};
  described.info.gradient_conventions = {Convention::detached};
  described.info.S.max = 100;
  return {described};
}

/// The first byte says as what the rest is read. What is taken says the same when it is written again.
bool run(std::string_view bytes) try {
  if (bytes.empty()) return false;
  const std::string_view fields = bytes.substr(1);
  if (bytes.front() == 'v') {
    const std::vector<Described> taken = decode_variants(fields);
    const std::string again = encode(taken);
    require(encode(decode_variants(again)) == again, "declarations say the same when they are written again");
  } else if (bytes.front() == 'd') {
    const std::string again = encode_device(decode_device(fields));
    require(encode_device(decode_device(again)) == again, "a device says the same when it is written again");
  } else {
    const std::string again = encode(decode_run(fields));
    require(encode(decode_run(again)) == again, "a request says the same when it is written again");
  }
  return true;
} catch (const FrameError& error) {
  require_message(error.what());
  return false;
}

std::string marked(char kind, const std::string& fields) { return std::string(1, kind).append(fields); }

std::vector<std::string> seeds() {
  return {marked('r', encode(request())), marked('v', encode(variants())), marked('v', encode(variants("two\nlines"))),
          marked('d', encode_device({{"device", std::string("cpu")}, {"device_name", std::string("x")}}))};
}

}  // namespace

Target frames_target() { return {"frames", run, seeds, {std::string(4, '\0'), "\xff\xff\xff\xff", "h", "c_last"}}; }

}  // namespace mlstm::fuzz
