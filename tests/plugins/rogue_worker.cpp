// SPDX-License-Identifier: Apache-2.0
// A worker that answers a request with what MLSTM_TEST_ROGUE says: a kind of damage, or the seed of random ones.
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

namespace {

constexpr int kFrames = 3, kControl = 4;

struct Header {
  std::uint64_t magic, token;
  std::uint32_t kind, meta_size;
  std::uint64_t data_size;
};
constexpr std::uint32_t kDone = 101, kRefused = 102, kError = 104;

void read_all(void* to, std::size_t size) {
  for (char* next = static_cast<char*>(to); size > 0;) {
    const ssize_t got = read(kFrames, next, size);
    if (got <= 0) _exit(0);
    next += got;
    size -= static_cast<std::size_t>(got);
  }
}

void answer(const Header& header, const std::string& meta = {}, const std::string& data = {}) {
  for (const auto& [bytes, size] : {std::pair<const void*, std::size_t>{&header, sizeof header},
                                    {meta.data(), meta.size()},
                                    {data.data(), data.size()}})
    (void)!send(kFrames, bytes, size, MSG_NOSIGNAL);
}

std::string random_bytes(std::mt19937& random, std::size_t size) {
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random() % 4 == 0 ? random() : 0);
  return bytes;
}

}  // namespace

int main(int argc, char** argv) {
  // confined by nothing
  if (argc > 2 && std::strcmp(argv[2], "--probe") == 0) return 64 + 15;
  Header request{};
  read_all(&request, sizeof request);
  std::vector<char> rest(request.meta_size + request.data_size);
  read_all(rest.data(), rest.size());
  const char* const setting = std::getenv("MLSTM_TEST_ROGUE");
  const std::string how = setting == nullptr ? "" : setting;
  // the size of the reply to the only run that is asked for, in bytes
  const char* const right_size = std::getenv("MLSTM_TEST_SIZE");
  Header reply = request;
  reply.kind = kDone;
  reply.meta_size = 0;
  reply.data_size = right_size == nullptr ? 0 : std::strtoull(right_size, nullptr, 10);
  const std::string data(reply.data_size, '\0');
  if (how == "nothing") return 0;
  if (how == "half a header") (void)!send(kFrames, &reply, 16, MSG_NOSIGNAL);
  if (how == "zeros") answer({});
  if (how == "other token") answer({reply.magic, reply.token + 1, kDone, 0, reply.data_size}, {}, data);
  if (how == "request back") answer(request);
  if (how == "huge meta") answer({reply.magic, reply.token, kDone, 0xffffffff, reply.data_size});
  if (how == "huge data") answer({reply.magic, reply.token, kDone, 0, ~std::uint64_t{0}});
  if (how == "too little data") answer({reply.magic, reply.token, kDone, 0, reply.data_size - 8}, {}, data);
  if (how == "data cut off") answer(reply, {}, data.substr(1));
  if (how == "no fields") answer(reply, {}, data);
  if (how == "data of an error") answer({reply.magic, reply.token, kError, 0, 8}, {}, data);
  if (how == "text without end") answer({reply.magic, reply.token, kRefused, 8, 0}, std::string(8, '\x7f'));
  if (how == "then hangs") {
    answer(reply, {}, data.substr(1));
    char byte;
    (void)!read(kControl, &byte, 1);  // until the verifier has enough
  }
  if (how.starts_with("seed ")) {
    std::mt19937 random(static_cast<unsigned>(std::stoul(how.substr(5))));
    const std::string meta = random_bytes(random, random() % 400);
    reply.kind = random() % 2 == 0 ? kDone : kDone + random() % 6;
    reply.meta_size = static_cast<std::uint32_t>(random() % 8 == 0 ? random() : meta.size());
    if (reply.kind != kDone) reply.data_size = random() % 2 == 0 ? 0 : random();
    if (random() % 8 == 0) reply.token ^= random();
    answer(reply, meta, data.substr(0, random() % 4 == 0 ? random() % (data.size() + 1) : data.size()));
  }
  return 0;
}
