// SPDX-License-Identifier: Apache-2.0
// The worker's process that runs kernels. It trusts the verifier, and is not trusted by it.
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <stdexcept>

#include <fmt/format.h>

#include "base/memory.hpp"
#include "runner/worker_ends.hpp"
#include "runner/worker_frames.hpp"

namespace mlstm::verify {
namespace {

/// The verifier hung up, or a kernel did: there is nothing more to do.
[[noreturn]] void leave() { _exit(kHungUp); }

void receive(int descriptor, std::span<std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t got = recv(descriptor, bytes.data(), bytes.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) leave();
    bytes = bytes.subspan(static_cast<std::size_t>(got));
  }
}

void send_all(int descriptor, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = send(descriptor, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) leave();
    bytes = bytes.subspan(static_cast<std::size_t>(sent));
  }
}

struct Reply {
  FrameKind kind = FrameKind::done;
  std::string meta;
  KernelData data;
};

class Server {
 public:
  Server(int descriptor, const FindKernel& find) : descriptor_(descriptor), find_(find) {}

  void answer_one() {
    FrameHeader header;
    receive(descriptor_, std::as_writable_bytes(std::span(&header, 1)));
    std::string meta(header.meta_size, '\0');
    receive(descriptor_, std::as_writable_bytes(std::span(meta)));
    const Reply reply = reply_to(header.kind, meta);
    std::fflush(stdout);
    const Source tensors = tensors_of(reply.data);
    header.kind = reply.kind;
    header.meta_size = static_cast<std::uint32_t>(reply.meta.size());
    header.data_size = size_of(tensors);
    send_all(descriptor_, std::as_bytes(std::span(&header, 1)));
    send_all(descriptor_, std::as_bytes(std::span(reply.meta)));
    for (const auto& tensor : tensors) send_all(descriptor_, tensor);
  }

 private:
  static Reply text_reply(FrameKind kind, std::string_view text) { return {kind, encode_text(text), {}}; }

  Reply reply_to(FrameKind kind, const std::string& meta) {
    try {
      switch (kind) {
        case FrameKind::describe:
          return describe(decode_text(meta));
        case FrameKind::unavailable: {
          const RunRequest request = decode_run(meta);
          return text_reply(FrameKind::done, verify::unavailable(kernel(request.library, request.key)));
        }
        case FrameKind::unsupported: {
          const RunRequest request = decode_run(meta);
          return text_reply(FrameKind::done, kernel(request.library, request.key).unsupported(request.outline.problem));
        }
        case FrameKind::run:
          return run(decode_run(meta));
        default:
          return text_reply(FrameKind::error, "the worker was asked for something unknown");
      }
    } catch (const std::invalid_argument& error) {
      return text_reply(FrameKind::refused, error.what());
    } catch (const CheckFailure& failure) {
      return {FrameKind::found, encode(failure), {}};
    } catch (const std::runtime_error& error) {
      return text_reply(FrameKind::failed, error.what());
    } catch (const OutOfMemory& error) {
      return text_reply(FrameKind::no_memory, error.what());
    } catch (const std::bad_alloc&) {
      return text_reply(FrameKind::no_memory, "the process that runs the kernel ran out of memory");
    } catch (const std::exception& error) {
      return text_reply(FrameKind::error, error.what());
    } catch (...) {
      return text_reply(FrameKind::error, "an exception of an unknown type");
    }
  }

  Reply describe(const std::string& library) {
    std::vector<Described> variants;
    for (const auto& variant : plugin(library)) variants.push_back({variant->info(), variant->has_supports()});
    return {FrameKind::done, encode(variants), {}};
  }

  Reply run(RunRequest request) {
    const auto received = [&](const CaseOutline& outline) {
      Case c = naming_who_ran_out("the process that runs the kernel", "it received the inputs",
                                  [&] { return make_room(outline); });
      for (const auto& tensor : room_in(c)) receive(descriptor_, tensor);
      return c;
    };
    const Case c = received(request.outline);
    if (request.other) request.options.other = std::make_shared<const Case>(received(*request.other));
    KernelData data = run_kernel(kernel(request.library, request.key), c, request.convention, request.options);
    return {FrameKind::done, encode_device(data.attributes), std::move(data)};
  }

  const PluginVariants& plugin(const std::string& library) {
    const auto known = plugins_.find(library);
    return known != plugins_.end() ? known->second : plugins_.emplace(library, load_plugin(library)).first->second;
  }

  const Kernel& kernel(const std::string& library, const std::string& key) {
    if (library.empty()) {
      if (const Kernel* found = find_(key); found != nullptr) return *found;
    } else {
      for (const auto& variant : plugin(library))
        if (variant->info().key() == key) return *variant;
    }
    throw std::logic_error(fmt::format("{}: not known to the worker{}", key,
                                       library.empty() ? "" : "; the plugin has changed since it was described"));
  }

  int descriptor_;
  const FindKernel& find_;
  std::map<std::string, PluginVariants> plugins_;
};

}  // namespace

void serve_frames(int descriptor, const FindKernel& find) {
  Server server(descriptor, find);
  for (;;) server.answer_one();
}

}  // namespace mlstm::verify
